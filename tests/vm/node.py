"""noded as it is installed in the guest, seen by kubelet, by an operator and by the kernel."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.cri_client import Cri
from tests.vm.guest import KEPT, REPOSITORY, Guest, say

IMAGE = "vm.example/busybox:1"
SOCKET = "/run/noded/noded.sock"
CGROUPS = "/sys/fs/cgroup"


def packages(revision: int) -> list[Path]:
    """noded and its runc plugin as Debian packages of that revision, built when the tree has changed."""
    from tests.packaging.roots import build_packages

    digest = hashlib.sha256()
    names = ("noded", "plugins", "packaging", "pyproject.toml", "requirements.lock", "README.md")
    for name in names:
        top = REPOSITORY / name
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and "__pycache__" not in path.parts and ".egg-info" not in str(path):
                digest.update(f"{path.relative_to(REPOSITORY)}\n".encode() + path.read_bytes())
    directory = KEPT / f"debs-{digest.hexdigest()[:16]}-{revision}"
    if not list(directory.glob("*.deb")):
        started = time.monotonic()
        options = ("--package=noded", "--package=noded-plugin-runc", f"--revision={revision}")
        build_packages("deb", directory, *options)
        say(f"packages of revision {revision} built in {time.monotonic() - started:.0f} s")
    return sorted(directory.glob("*.deb"))


class Node:
    """The node under test. `cri` speaks to its daemon from here."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.cri = Cri(str(guest.forward(SOCKET)))

    def __enter__(self) -> Node:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cri.close()

    # the package

    def ensure_installed(self) -> None:
        """Install revision 1 unless a noded is installed; have it running with the test's image."""
        state = self.guest.run("dpkg-query", "-Wf", "${db:Status-Status}", "noded", status=None)
        if state != "installed":
            self.install(1)
        self.guest.run("systemctl", "start", "noded")
        self.cri.load(Path("/payload/image.tar"))  # the command line takes ten seconds in an emulator

    def install(self, revision: int) -> str:
        """Install, upgrade or downgrade with apt, as the README says; return what apt says."""
        started = time.monotonic()
        said = self.guest.shell(
            'apt-get -q -y --allow-downgrades install /payload/debs-"$1"/*.deb', str(revision)
        )
        self.guest.shell(
            "mkdir -p /etc/cni/net.d; "
            "cp /usr/share/doc/noded/examples/10-noded-bridge.conflist /etc/cni/net.d/"
        )
        say(f"packages of revision {revision} installed in {time.monotonic() - started:.0f} s")
        return said

    # the daemon

    def journal(self) -> str:
        """The end of the daemon's log."""
        return self.guest.run(
            "journalctl", "-u", "noded", "-o", "cat", "-n", "150", "--no-pager", status=None
        )

    def property(self, name: str, unit: str = "noded.service") -> str:
        """A property of a unit of systemd."""
        return self.guest.run("systemctl", "show", "--value", f"--property={name}", unit).strip()

    def main_pid(self) -> int:
        """The daemon's process id in the guest."""
        return int(self.property("MainPID"))

    # pods

    def run_pod(self, handler: str = "", **options: Any) -> tuple[str, Any]:
        """RunPodSandbox in kubelet's way with systemd; return (id, configuration)."""
        options.setdefault("cgroup_parent", "kubepods-burstable.slice")
        logs = f"/var/log/pods/{time.monotonic_ns()}"
        self.guest.run("mkdir", "-p", logs)  # as kubelet does
        config = self.cri.pod_config(log_directory=logs, **options)
        return self.cri.run_pod(config, handler), config

    def container_pid(self, container_id: str) -> int:
        """The first process of a container."""
        return int(json.loads(self.cri.verbose_status(container_id).info["info"])["pid"])

    def cgroup(self, container_id: str) -> str:
        """The directory of a container's scope; crun puts its processes into one below it."""
        inside = self.guest.read(f"/proc/{self.container_pid(container_id)}/cgroup").strip()
        return CGROUPS + inside.removeprefix("0::").removesuffix("/container")

    def wait_exited(self, container_id: str, seconds: float = 60.0) -> Any:
        """Wait for the end of a container; return its status."""
        deadline = time.monotonic() + seconds
        while (status := self.cri.status(container_id)).state == self.cri.pb.CONTAINER_RUNNING:
            assert time.monotonic() < deadline, f"{container_id} still runs after {seconds} s"
            time.sleep(0.1)  # its pid is the guest's: no pidfd here
        return status

    def output(self, container_id: str, *command: str) -> str:
        """What a command prints in a container; it must succeed."""
        answer = self.cri.exec(container_id, *command)
        assert answer.exit_code == 0, answer
        return str(answer.stdout.decode())

    def remove_all_pods(self) -> None:
        """Leave no pod."""
        if self.guest.run("systemctl", "is-active", "noded", status=None).strip() == "active":
            self.cri.remove_all_pods()
