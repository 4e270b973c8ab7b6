"""Runtime handlers are changed while pods run, by SIGHUP; what cannot be used changes nothing."""

from __future__ import annotations

import json
import shutil
import stat

import pytest

from noded.errors import NodedError
from noded.proto.runtime import v1 as cri
from noded.testing import HandlerCase, TestNode

pytestmark = pytest.mark.root

SLEEP = "exec busybox sleep 1000"


@pytest.fixture
def script(tmp_path):
    """`script(name)`: a runtime that writes its commands into tmp_path/NAME.log."""

    def write(name):
        path = tmp_path / name
        path.write_text(f'#!/bin/sh\necho "$@" >>{path}.log\nexec {shutil.which("runc")} "$@"\n')
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    return write


def handlers(node):
    reply = node.runtime("Status", cri.StatusRequest(), cri.StatusResponse)
    return {item.name for item in reply.runtime_handlers}


def write_tables(node, original, *tables):
    node.config.write_text(original + "".join(tables))


def annotations(node, container):
    return json.loads((node.state / "containers" / container.id / "config.json").read_bytes())["annotations"]


def test_handlers_come_change_and_go_while_pods_live(script):
    first, second = script("first"), script("second")
    with TestNode([]) as node:
        original = node.config.read_text()
        write_tables(node, original, f'[runtimes.mine]\ntype = "runc"\npath = "{first}"\n')
        assert "mine" in node.reload()
        assert "mine" in handlers(node)
        pod = node.run_pod("mine")
        container = pod.run(SLEEP)
        before = node.pid

        write_tables(
            node,
            original,
            f'[runtimes.mine]\ntype = "runc"\npath = "{second}"\n',
            '[runtimes.more]\ntype = "crun"\n',
        )
        node.reload()
        newer = node.run_pod("mine")
        assert newer.run("exit 5").wait().exit_code == 5
        assert "create" in second.with_name("second.log").read_text()
        # The older pod keeps what it was made with.
        commands = first.with_name("first.log")
        lines = len(commands.read_text().splitlines())
        assert container.exec("exit 3").exit_code == 3
        assert len(commands.read_text().splitlines()) > lines
        node.run_pod("more").remove()

        write_tables(node, original)
        node.reload()
        assert "mine" not in handlers(node)
        with pytest.raises(NodedError, match="'mine' is not configured"):
            node.run_pod("mine")
        assert container.running
        assert pod.run("exit 6", name="later").wait().exit_code == 6
        pod.remove()
        newer.remove()
        assert node.pid == before


def test_what_noded_decides_itself_changes_without_a_new_runtime():
    with TestNode([]) as node:
        original = node.config.read_text()
        pod = node.run_pod("runc")
        plain = pod.run(SLEEP, name="plain")
        write_tables(node, original, '[runtimes.runc]\ndefault_annotations = { "example.org/a" = "b" }\n')
        node.reload()
        marked = pod.run(SLEEP, name="marked")
        assert "example.org/a" not in annotations(node, plain)
        assert annotations(node, marked)["example.org/a"] == "b"
        pod.remove()


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ('[runtimes.mine]\ntype = "no-such-type"\n', "no-such-type"),
        ('[runtimes.mine]\ntype = "runc"\npath = "/nowhere/runc"\n', "/nowhere/runc"),
        ('[runtimes.mine]\ntype = "runc"\ncolour = "red"\n', "colour"),
        ("[runtimes.mine]\ntype = \n", "noded.toml"),
        ('default_runtime = "nobody"\n', "nobody"),
    ],
    ids=["unknown type", "missing program", "unknown option", "no TOML", "unknown default"],
)
def test_a_table_that_cannot_be_used_leaves_the_old_one_in_force(table, words):
    with TestNode([HandlerCase("mine", 'type = "runc"')]) as node:
        pod = node.run_pod("mine")
        original = node.config.read_text()
        if table.startswith("default_runtime"):
            broken = "\n".join(line for line in original.splitlines() if "default_runtime" not in line)
            node.config.write_text(table + broken)
        else:
            node.config.write_text(original[: original.index("[runtimes.mine]")] + table)
        told = node.reload()
        assert words in told
        assert "stays in force" in told
        assert "mine" in handlers(node)
        other = node.run_pod("mine")
        assert other.run("exit 4").wait().exit_code == 4
        assert pod.run("exit 3").wait().exit_code == 3
        node.config.write_text(original)
        assert "stays in force" not in node.reload()


def test_the_default_handler_changes_for_pods_without_a_runtime_class():
    with TestNode([HandlerCase("mine", 'type = "runc"')]) as node:
        original = node.config.read_text()
        node.config.write_text(original.replace('default_runtime = "mine"', 'default_runtime = "crun"'))
        node.reload()
        pod = node.run_pod("")
        assert pod.status().runtime_handler == "crun"
        pod.remove()
