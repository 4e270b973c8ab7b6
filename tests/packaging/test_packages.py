"""Whole packages: built, installed in other systems, used there, and removed again."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.packaging.roots import Root, build_packages
from tests.support.cni import bridge_conflist, delete_bridge, free_subnet
from tests.support.cri_client import Cri
from tests.support.images import busybox_image, write_layout
from tests.support.processes import end

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("proving")]

PACKAGING = Path(__file__).resolve().parents[2] / "packaging"
# One release for each Python that noded is packaged for.
PYTHONS = {"bookworm": "3.11", "noble": "3.12", "trixie": "3.13", "resolute": "3.14"}
NAMES = ("noded", "noded-plugin-runc", "noded-plugin-gvisor", "noded-plugin-kata")
DEPENDENCIES = ("runc", "crun", "conmon", "catatonit", "containernetworking-plugins", "iptables", "nftables")
READY_SECONDS = 60


@pytest.mark.parametrize("kind", ["deb", "rpm"])
def test_two_builds_give_the_same_bytes(kind, built, tmp_path):
    # Downloads are shared, nothing else: another place, another user's environment.
    work = tmp_path / "work"
    work.mkdir()
    (work / "wheels").symlink_to(PACKAGING.parent / "build" / "packages" / "wheels")
    again = build_packages(
        kind,
        tmp_path / "again",
        work=work,
        environment={"TZ": "Asia/Tokyo", "HOME": "/", "LC_ALL": "C.UTF-8"},
    )
    assert [path.name for path in again] == [path.name for path in built(kind)]
    for first, second in zip(built(kind), again, strict=True):
        assert first.read_bytes() == second.read_bytes(), first.name


@pytest.mark.skipif(shutil.which("rpmlint") is None, reason="rpmlint is not installed")
def test_rpmlint_finds_nothing(built):
    done = subprocess.run(
        ["rpmlint", "--config", str(PACKAGING / "rpm" / "rpmlint.toml"), *map(str, built("rpm"))],
        capture_output=True, text=True,
    )  # fmt: skip
    findings = re.findall(r"^\S+: [EW]: .*", done.stdout, re.MULTILINE)
    assert not findings
    assert " 0 errors, 0 warnings" in done.stdout


@pytest.mark.skipif(shutil.which("lintian") is None, reason="lintian is not installed")
def test_lintian_finds_nothing(built):
    done = subprocess.run(["lintian", "--allow-root", *built("deb")], capture_output=True, text=True)
    assert re.findall(r"^[EW]: .*", done.stdout, re.MULTILINE) == []


def assert_works(root: Root, python: str) -> None:
    """The commands that need no daemon."""
    assert root.run("noded", "--version") == "noded 0.1.0\n"
    assert root.run("noded", "config", "check") == "/etc/noded/noded.toml: configuration is valid\n"
    listed = json.loads(root.run("noded", "plugins", "list", "--json"))
    assert {plugin["distribution"] for plugin in listed["plugins"]} == set(NAMES[1:])
    assert [plugin["problem"] for plugin in listed["plugins"]] == ["", "", ""]
    available = {handler["name"] for handler in listed["handlers"] if handler["available"]}
    assert {"runc", "crun"} <= available
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
    assert root.files() - before <= {"/run/noded", "/var/lib/noded"}


class Node:
    """A noded that was installed in a root file system, with pods."""

    def __init__(self, root: Root, bridge: str) -> None:
        self.root = root
        self.bridge = bridge
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return self.root.path("/run/noded/noded.sock")

    def start(self) -> None:
        """Start the daemon as its unit does, and wait until it is ready."""
        notify = self.root.path("/run/notify.sock")
        notify.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            ready.bind(str(notify))
            ready.settimeout(READY_SECONDS)
            log = (self.root.directory.parent / "noded.log").open("ab")
            with log:
                self.process = subprocess.Popen(
                    self.root.command("noded", "serve", environment={"NOTIFY_SOCKET": "/run/notify.sock"}),
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                )  # fmt: skip
            while b"READY=1" not in ready.recv(4096).split(b"\n"):
                pass

    def stop(self) -> None:
        if self.process is not None:
            end(self.process, 40)

    def run_pod(self, image: str) -> int:
        """A pod with one container; the container's process id."""
        with Cri(f"unix://{self.socket}") as cri:
            pod = cri.pod_config(log_directory="/var/log", cgroup_parent=f"/{self.bridge}")
            pod_id = cri.run_pod(pod)
            config = cri.container_config("app", image, ["sleep", "1000000"])
            container = cri.run_container(pod_id, config, pod)
            status = cri.runtime.ContainerStatus(
                cri.pb.ContainerStatusRequest(container_id=container, verbose=True)
            )
        return int(json.loads(status.info["info"])["pid"])

    def running(self) -> int:
        """How many containers run."""
        return len(self.root.run("noded", "ps", "--quiet").split())


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
        _end_pods(bridge)


def _end_pods(name: str) -> None:
    """Whatever a failed test left in its cgroups."""
    for listed in Path("/sys/fs/cgroup").rglob(f"{name}/**/cgroup.procs"):
        for pid in listed.read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


def exists(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def load_image(node: Node) -> str:
    image = busybox_image(labels={"of": "packages"})
    write_layout(image, node.root.directory / "tmp" / "layout", "support.invalid/busybox:1.0")
    node.root.run("noded", "images", "load", "/tmp/layout")
    return image.id


def assert_nothing_is_left(node: Node) -> None:
    root = node.root
    left = [point for point in root.mounts() if "noded" in point or "/run/netns" in point]
    assert left == []
    for place in ("/var/lib/noded", "/run/noded", "/run/netns", "/usr/lib/noded", "/etc/noded/noded.toml"):
        assert not root.path(place).exists(), place
    cgroups = [path for path in Path("/sys/fs/cgroup").rglob(f"{node.bridge}/noded-*") if path.is_dir()]
    assert cgroups == []


def leases(node: Node) -> list[str]:
    """Addresses that CNI's host-local has given out: gone when the plugins were told of each pod's end."""
    found = node.root.path("/var/lib/cni/networks/packaged").glob("*.*.*.*")
    return [path.name for path in found if not path.name.startswith("last")]


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
    elsewhere = 'root = "/srv/noded-root"\nstate = "/run/noded-state"\n'
    node.root.path("/etc/noded/conf.d/elsewhere.toml").write_text(elsewhere)
    node.start()
    node.stop()
    node.root.run("dpkg", "--remove", *NAMES)
    assert node.root.path("/srv/noded-root/noded.db").exists()
    said = node.root.run("dpkg", "--purge", *NAMES)
    assert "noded: " not in said
    assert not node.root.path("/srv/noded-root").exists()
    assert not node.root.path("/run/noded-state").exists()
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


def test_a_purge_without_python_ends_pods_all_the_same(node):
    pid = node.run_pod(load_image(node))
    node.stop()
    node.root.run("dpkg", "--remove", *NAMES)
    (node.root.directory / "usr/bin/python3").rename(node.root.directory / "usr/bin/python3.away")
    said = node.root.run("dpkg", "--purge", *NAMES)
    assert "noded: the rest is removed without noded" in said
    assert not exists(pid)
    assert_nothing_is_left(node)


def test_the_purge_program_refuses_while_the_daemon_runs(node):
    said = node.root.run("/usr/lib/noded/purge", status=1)
    assert said == (
        "noded: purge: noded is running: stop it first (systemctl stop noded.socket noded.service)\n"
    )


def test_the_demonstration_works_from_the_packages(root, built):
    root.run("dpkg", "--install", *root.give(built("deb")))
    shutil.copy(shutil.which("busybox") or pytest.skip("busybox is not installed"), root.directory / "bin")
    told = root.run("noded", "demo", status=None, seconds=120)
    assert "All went well." in told, told
