"""Packages in the releases that they are for: installed, used, removed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.packaging.installed import NAMES, Node
from tests.packaging.roots import Root
from tests.support.cni import delete_bridge
from tests.support.documents import documented
from tests.support.images import busybox_image, write_layout

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("proving")]

# One release for each Python that noded is packaged for.
PYTHONS = {"bookworm": "3.11", "noble": "3.12", "trixie": "3.13", "resolute": "3.14"}
README = Path(__file__).resolve().parents[2] / "README.md"
NEW_USER_SECONDS = 120.0


def assert_works(root: Root, python: str) -> None:
    """The commands that need no daemon."""
    assert root.run("noded", "--version") == "noded 0.1.0\n"
    assert root.run("noded", "config", "check") == "/etc/noded/noded.toml: configuration is valid\n"
    listed = documented("plugins list", root.run("noded", "plugins", "list", "--json"))
    assert {plugin["distribution"] for plugin in listed["plugins"]} == set(NAMES[1:])
    assert [plugin["problem"] for plugin in listed["plugins"]] == ["", "", ""]
    available = {handler["name"] for handler in listed["handlers"] if handler["available"]}
    assert {"runc", "crun"} <= available
    checked = documented("check", root.run("noded", "check", "--json", status=None))
    assert checked["noded"] == "0.1.0"
    verdicts = {each["check"]: each["verdict"] for each in checked["results"]}
    assert {verdicts[f"runtimes.{name}"] for name in ("runc", "crun", "conmon")} == {"ok"}
    assert json.loads(root.run("noded", "schema", "check"))["title"] == "noded check --json"
    assert root.run("python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])").strip() == python
    # The system's Python stays as it was, and what noded runs is compiled, for it alone.
    assert "No module named" in root.run("python3", "-c", "import noded", status=1)
    compiled = {path.name.split(".")[1] for path in (root.directory / "usr/lib/noded").rglob("*.pyc")}
    assert compiled == {f"cpython-{python.replace('.', '')}"}


@pytest.mark.parametrize(("root", "python"), PYTHONS.items(), indirect=["root"])
def test_debian_packages_install_work_and_leave_nothing_when_purged(root, python, built):
    before = root.files()
    root.run("dpkg", "--install", *root.give(built("deb")))
    assert_works(root, python)
    assert root.run("dpkg", "--verify", *NAMES) == ""
    # The way of an upgrade, and a plugin that goes: the daemon's byte code is made anew.
    root.run("dpkg", "--install", *root.give(built("deb")))
    root.run("dpkg", "--purge", "noded-plugin-kata")
    assert "noded-plugin-kata" not in root.run("noded", "plugins", "list")
    assert not (root.directory / "usr/lib/noded/common/noded_kata").exists()
    root.run("dpkg", "--purge", *NAMES[:3])
    assert root.files() - before == set()


def test_a_removed_package_keeps_its_configuration_and_state(root, built):
    root.run("dpkg", "--install", *root.give(built("deb")))
    kept = root.directory / "var/lib/noded"
    kept.mkdir(exist_ok=True)
    (kept / "noded.db").write_text("")
    root.run("dpkg", "--remove", *NAMES)
    assert (kept / "noded.db").exists()
    assert (root.directory / "etc/noded/noded.toml").exists()
    assert not (root.directory / "usr/lib/noded").exists()
    root.run("dpkg", "--purge", "noded")
    assert not kept.exists()
    assert not (root.directory / "etc/noded").exists()


def test_another_python_is_told_what_would_do(root, built):
    root.run("dpkg", "--install", *root.give(built("deb")))
    (root.directory / "usr/lib/noded/cp313").rename(root.directory / "usr/lib/noded/cp39")
    said = root.run("noded", "status", status=1)
    assert said.startswith(
        "noded: /usr/bin/python3 is Python 3.13; this package of noded works with 3.9, 3.11,"
    )


@pytest.mark.skipif(shutil.which("rpm") is None, reason="rpm is not installed: apt-get install rpm")
def test_rpm_packages_install_work_and_leave_nothing_but_state(root, built):
    """There is no Fedora here: what is tried is everything but the resolution of dependencies."""
    before = root.files()
    rpm = ["rpm", "--root", str(root.directory), "--dbpath", "/var/lib/rpm", "--nodeps"]

    def run(*arguments: str) -> None:
        done = subprocess.run([*rpm, *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "failed" not in done.stderr

    run("--install", *map(str, built("rpm")))
    assert_works(root, PYTHONS["trixie"])
    run("--verify", "--nomtime", *NAMES)
    run("--upgrade", "--force", *map(str, built("rpm")))
    assert_works(root, PYTHONS["trixie"])
    run("--erase", *reversed(NAMES))
    # /usr/share/licenses belongs to Fedora's package `filesystem`.
    assert root.files() - before <= {"/run/noded", "/var/lib/noded", "/usr/share/licenses"}


def test_the_demonstration_works_from_the_packages(root, built):
    root.run("dpkg", "--install", *root.give(built("deb")))
    shutil.copy(shutil.which("busybox") or pytest.skip("busybox is not installed"), root.directory / "bin")
    told = root.run("noded", "demo", status=None, seconds=120)
    assert "All went well." in told, told


def test_a_new_user_has_a_pod_in_two_minutes(root, built, tmp_path):
    """What the README says, from the packages to the output of a pod; the image comes from a file."""
    (block,) = re.findall(r"^```sh\n(apt-get install -y ./dist.*?)^```", README.read_text(), re.M | re.S)
    write_layout(busybox_image(), root.directory / "srv" / "image", "docker.io/library/busybox:1.37")
    root.give([path for path in built("deb") if "noded_" in path.name or "runc" in path.name], "/srv/dist")
    node = Node(root, "noded0")
    began = time.monotonic()
    try:
        for line in filter(None, block.splitlines()):
            command = line.partition("#")[0].strip()
            if command.startswith("noded run"):
                root.run("noded", "images", "load", "/srv/image")
            said = root.run("sh", "-ec", f"cd /srv; {command}", status=None if "check" in line else 0)
            if command.startswith("apt-get install"):
                (root.directory / "etc/noded/conf.d/test.toml").write_text('cgroup_driver = "cgroupfs"\n')
                node.start()  # as systemd does, which is not here
        took = time.monotonic() - began
    finally:
        node.stop()
        delete_bridge("noded0")
    print(f"a new user has a pod in {took:.0f} s")
    assert said == "a pod runs\n"
    assert took < NEW_USER_SECONDS
