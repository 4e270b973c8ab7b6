"""A noded that was installed from its packages in another system's root file system."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from tests.packaging.roots import Root
from tests.support.cri_client import Cri
from tests.support.images import busybox_image, write_layout
from tests.support.processes import end

NAMES = ("noded", "noded-plugin-runc", "noded-plugin-gvisor", "noded-plugin-kata")
DEPENDENCIES = ("runc", "crun", "conmon", "catatonit", "containernetworking-plugins", "iptables", "nftables")
READY_SECONDS = 60


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

    def write_stacks(self) -> None:
        """Have the daemon write the file that an operator asks for with SIGUSR1, and wait for it."""
        assert self.process is not None
        deadline = time.monotonic() + READY_SECONDS
        self.process.send_signal(signal.SIGUSR1)
        while not list(self.root.path("/run/noded").glob("stacks-*.txt")):
            assert time.monotonic() < deadline, "no stacks were written"
            time.sleep(0.02)

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


def end_pods(name: str) -> None:
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
    cgroups = [path for path in Path("/sys/fs/cgroup").rglob(f"{node.bridge}/*-*") if path.is_dir()]
    assert cgroups == []


def leases(node: Node) -> list[str]:
    """Addresses that CNI's host-local has given out: gone when the plugins were told of each pod's end."""
    found = node.root.path("/var/lib/cni/networks/packaged").glob("*.*.*.*")
    return [path.name for path in found if not path.name.startswith("last")]
