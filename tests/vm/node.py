"""noded as it is installed in the guest, seen by kubelet, by an operator and by the kernel."""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.cri_client import Cri
from tests.vm.guest import KEPT, REPOSITORY, Guest, say

IMAGE = "vm.example/busybox:1"
SOCKET = "/run/noded/noded.sock"
CGROUPS = "/sys/fs/cgroup"
# For every service: an emulator on a busy machine may take longer to start one than any node does.
SLOW = "[Service]\nTimeoutStartSec=900\n"
INSTALL_SECONDS = 1500.0
CALL_SECONDS = 240.0  # an emulator on a busy machine takes its time: kubelet waits for 120


def packages() -> dict[int, Path]:
    """Directories with noded and its runc plugin as Debian packages, by revision.

    They are built when the tree has changed. Revision 2 is revision 1 under its number.
    """
    from tests.packaging.roots import build_packages, source_digest

    directory = KEPT / f"debs-{source_digest()}"
    if not directory.exists():
        started = time.monotonic()
        with tempfile.TemporaryDirectory(dir=KEPT) as name:
            made = Path(name)
            build_packages(
                "deb", made / "1", "--package=noded", "--package=noded-plugin-runc", "--revision=1"
            )
            (made / "2").mkdir()
            for package in (made / "1").glob("*.deb"):
                _renumber(package, made / "2" / package.name.replace("-1_", "-2_"))
            made.rename(directory)
            made.mkdir()  # for its owner to remove
        say(f"packages built in {time.monotonic() - started:.0f} s")
    return {1: directory / "1", 2: directory / "2"}


def _renumber(package: Path, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent) as name:
        subprocess.run(["dpkg-deb", "--raw-extract", package, f"{name}/tree"], check=True)
        control = Path(name, "tree/DEBIAN/control")
        text, count = re.subn(r"(?m)^(Version: .*)-1$", r"\1-2", control.read_text())
        assert count == 1, text
        control.write_text(text)
        subprocess.run(
            ["dpkg-deb", "-Zgzip", "-z1", "--build", f"{name}/tree", target],
            check=True,
            stdout=subprocess.DEVNULL,
        )


def bring_modules(guest: Guest) -> None:
    """Give a guest that an earlier run started the modules of noded that have changed, and restart it."""
    there = "/usr/lib/noded/common"
    script = 'test ! -d "$1" || { cd "$1"; find noded noded_runc -name "*.py" -exec sha256sum {} +; }'
    lines = guest.shell(script, there).splitlines()
    known = {name: digest for digest, name in (line.split() for line in lines)}
    changed = []
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for top in (REPOSITORY, REPOSITORY / "plugins" / "runc"):
            for path in sorted(top.glob("noded*/**/*.py")):
                name = str(path.relative_to(top))
                if known and known.get(name) != hashlib.sha256(path.read_bytes()).hexdigest():
                    changed.append(name)
                    archive.add(path, name)
    if changed:
        say(f"brought {len(changed)} modules")
        guest.write("/var/tmp/modules.tar.gz", content.getvalue())
        guest.shell('tar -C "$1" -xzf /var/tmp/modules.tar.gz --no-same-owner', there)
        guest.run("systemctl", "try-restart", "noded", seconds=900)


class Node:
    """The node under test. `cri` speaks to its daemon from here."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.cri = Cri(str(guest.forward(SOCKET)), call_seconds=CALL_SECONDS)

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
        self.load_image()

    def install(self, revision: int) -> str:
        """Install, upgrade or downgrade with apt, as the README says; return what apt says."""
        self.guest.run("mkdir", "-p", "/etc/systemd/system/service.d", "/etc/cni/net.d")
        started = time.monotonic()
        self.guest.write("/etc/systemd/system/service.d/emulator.conf", SLOW)
        said = self.guest.shell(
            'apt-get -q -y --allow-downgrades install /payload/debs-"$1"/*.deb',
            str(revision),
            seconds=INSTALL_SECONDS,
        )
        self.guest.shell("cp /usr/share/doc/noded/examples/10-noded-bridge.conflist /etc/cni/net.d/")
        say(f"packages of revision {revision} installed in {time.monotonic() - started:.0f} s")
        return said

    def load_image(self) -> None:
        """Have the test's image."""
        self.cri.load(Path("/payload/image.tar"))  # the command line takes ten seconds in an emulator

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

    def wait_exited(self, container_id: str, seconds: float = 600.0) -> Any:
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
