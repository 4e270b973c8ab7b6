"""Pods under packages that are upgraded, removed, installed again and purged."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packaging.installed import (
    DEPENDENCIES,
    NAMES,
    Node,
    assert_nothing_is_left,
    end_pods,
    exists,
    leases,
    load_image,
)
from tests.support.cni import bridge_conflist, delete_bridge, free_subnet

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("proving")]


@pytest.fixture
def node(root, built, tmp_path) -> Iterator[Node]:
    root.run("dpkg", "--install", *root.give(built("deb")))
    bridge = f"ndp{os.urandom(3).hex()}"
    conflist = bridge_conflist("packaged", bridge, free_subnet(), Path("/var/lib/cni/networks"))
    configuration = root.directory / "etc/cni/net.d/10-test.conflist"
    configuration.parent.mkdir(parents=True, exist_ok=True)
    configuration.write_text(json.dumps(conflist))
    (root.directory / "etc/noded/conf.d/test.toml").write_text('cgroup_driver = "cgroupfs"\n')
    made = Node(root, bridge)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        print((tmp_path / "noded.log").read_text(errors="replace")[-20000:])
        delete_bridge(bridge)
        end_pods(bridge)


def test_pods_survive_an_upgrade_and_are_stopped_by_a_purge(node, built):
    pid = node.run_pod(load_image(node))
    node.root.run("dpkg", "--install", *node.root.give(built("deb")))
    assert exists(pid)
    node.stop()  # what systemd does after an upgrade
    node.start()
    assert exists(pid)
    assert node.running() == 1
    node.stop()
    said = node.root.run("dpkg", "--purge", *NAMES)
    assert "noded: purge:" not in said
    assert not exists(pid)
    assert_nothing_is_left(node)
    assert leases(node) == []


def test_pods_survive_a_removal_and_are_taken_over_by_a_new_installation(node, built):
    pid = node.run_pod(load_image(node))
    node.stop()
    said = node.root.run("dpkg", "--remove", *NAMES)
    assert "noded: pods go on running" in said
    assert exists(pid)
    node.root.run("dpkg", "--install", *node.root.give(built("deb")))
    node.start()
    assert node.running() == 1
    assert exists(pid)
    node.stop()
    node.root.run("dpkg", "--purge", *NAMES)
    assert not exists(pid)
    assert_nothing_is_left(node)


@pytest.mark.parametrize("options", [[], ["--auto-remove"]], ids=["purge", "auto-remove"])
def test_apt_purges_in_order_though_it_removes_first(node, options):
    """apt has dpkg remove all packages, dependencies too, before any of them is purged."""
    pid = node.run_pod(load_image(node))
    assert leases(node)
    node.stop()
    node.root.run("apt-mark", "auto", *DEPENDENCIES)
    said = node.root.run("apt-get", "-q", "-y", "purge", *options, *NAMES)
    assert "noded: " not in said
    assert not exists(pid)
    assert leases(node) == []
    assert_nothing_is_left(node)
    assert not options or not node.root.path("/usr/lib/cni").exists(), "what noded needed is gone as well"


@pytest.mark.parametrize(
    "remove", [["dpkg", "--remove"], ["apt-get", "-q", "-y", "remove"]], ids=["dpkg", "apt"]
)
def test_a_purge_after_a_removal_tears_pods_down_in_order(node, remove):
    pid = node.run_pod(load_image(node))
    node.stop()
    said = node.root.run(*remove, *NAMES)
    assert "noded: pods go on running" in said
    assert not node.root.path("/usr/lib/noded").exists()
    assert exists(pid)
    assert leases(node)
    said = node.root.run("dpkg", "--purge", *NAMES)
    assert "noded: " not in said
    assert not exists(pid)
    assert leases(node) == []
    assert_nothing_is_left(node)


def test_a_purge_after_a_removal_finds_the_directories_of_the_configuration(node):
    """dpkg removes the configuration before it purges."""
    node.stop()
    elsewhere = 'root = "/srv/noded-root"\nstate = "/run/noded-state"\n[images]\nroot = "/srv/images"\n'
    node.root.path("/etc/noded/conf.d/elsewhere.toml").write_text(elsewhere)
    node.start()
    node.stop()
    node.root.run("dpkg", "--remove", *NAMES)
    assert node.root.path("/srv/noded-root/noded.db").exists()
    said = node.root.run("dpkg", "--purge", *NAMES)
    assert "noded: " not in said
    assert not node.root.path("/srv/noded-root").exists()
    assert not node.root.path("/run/noded-state").exists()
    assert not node.root.path("/srv/images").exists()
    assert_nothing_is_left(node)


def test_a_removal_without_pods_keeps_no_code_and_a_new_installation_none_either(node, built):
    kept = node.root.path("/var/lib/noded/removed")
    node.stop()
    node.root.run("dpkg", "--remove", *NAMES)
    assert list(kept.rglob("*.py")) == []
    node.root.run("dpkg", "--install", *node.root.give(built("deb")))
    node.start()
    node.run_pod(load_image(node))
    node.stop()
    node.root.run("dpkg", "--remove", *NAMES)
    assert {path.name for path in (kept / "plugins").iterdir()} >= {"noded_runc", "noded_kata"}
    modules = kept / "noded" / "common" / "noded" / "__init__.py"
    assert modules.exists()
    node.root.run("dpkg", "--install", *node.root.give(built("deb")))
    assert list(kept.rglob("*.py")) == []


@pytest.mark.parametrize("compat", ["", "[compat]\ncadvisor = true\n"], ids=["noded", "cadvisor"])
def test_a_purge_without_python_ends_pods_all_the_same(node, compat):
    node.stop()
    node.root.path("/etc/noded/conf.d/compat.toml").write_text(compat)
    node.start()
    pid = node.run_pod(load_image(node))
    node.stop()
    node.root.run("dpkg", "--remove", *NAMES)
    (node.root.directory / "usr/bin/python3").rename(node.root.directory / "usr/bin/python3.away")
    said = node.root.run("dpkg", "--purge", *NAMES)
    assert "noded: the rest is removed without noded" in said
    assert not exists(pid)
    assert_nothing_is_left(node)


def test_the_purge_program_alone_leaves_nothing_but_refuses_while_the_daemon_runs(node):
    """All that rpm has: it tells no script of a purge."""
    pid = node.run_pod(load_image(node))
    node.write_stacks()
    node.root.path("/run/noded/seccomp").mkdir(exist_ok=True)  # as the first recorded container makes it
    said = node.root.run("/usr/lib/noded/purge", status=1)
    assert said == (
        "noded: purge: noded is running: stop it first (systemctl stop noded.socket noded.service)\n"
    )
    assert exists(pid)
    node.stop()
    assert node.root.run("/usr/lib/noded/purge") == ""
    assert not exists(pid)
    assert not node.root.path("/run/noded").exists()
    assert not node.root.path("/var/lib/noded").exists()
    assert leases(node) == []
