"""Where everything lives. Every path derives from an id, so cleanup needs only the record."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

# Where it is without configuration.
ROOT = Path("/var/lib/noded")
STATE = Path("/run/noded")
SOCKET = STATE / "noded.sock"


@dataclass(frozen=True, slots=True)
class Layout:
    """The two directory trees of a noded instance; `content` and `layers` may be below another one, `images`.

    root/   (survives a reboot)                state/  (tmpfs, gone after a reboot)
      noded.db                                   noded.sock
      timelines/
      content/blobs/sha256/HEX                   pods/ID/         resolv.conf, hostname, shm/, ns/, infra/
      layers/CHAIN_HEX/                          containers/ID/   OCI bundle: config.json, rootfs/
      containers/ID/  upper/ work/               exits/           conmon's exit files, one per id
      checkpoints/ID/ restores/ID/               seccomp/         listeners and reports of their notifications
    """

    root: Path
    state: Path
    netns_dir: Path = Path("/run/netns")
    images: Path | None = None

    @property
    def image_root(self) -> Path:
        """Holds blobs and layers of images."""
        return self.images or self.root

    @property
    def database(self) -> Path:
        return self.root / "noded.db"

    @property
    def crash_mark(self) -> Path:
        """Says whether the node crashed while the daemon ran."""
        return self.root / "running"

    @property
    def timelines(self) -> Path:
        """Journal of what clients asked for, and how long each step took."""
        return self.root / "timelines"

    @property
    def content(self) -> Path:
        return self.image_root / "content"

    @property
    def layers(self) -> Path:
        return self.image_root / "layers"

    def container_data(self, container_id: str) -> Path:
        """Writable layer and other data of one container."""
        return self.root / "containers" / container_id

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    def checkpoint(self, container_id: str) -> Path:
        """What a checkpoint needs while it is made; not in the container's data, which may have a quota."""
        return self.checkpoints / container_id

    def restore(self, container_id: str) -> Path:
        """The files of an archive that a container is made from, until it runs."""
        return self.root / "restores" / container_id

    def pod(self, sandbox_id: str) -> Path:
        """What belongs to a sandbox and is gone after a reboot."""
        return self.state / "pods" / sandbox_id

    def namespace_pin(self, sandbox_id: str, kind: str) -> Path:
        """Pin file of a pod namespace; the network one is where CNI tools look for it."""
        if kind == "net":
            return self.netns_dir / f"noded-{sandbox_id}"
        return self.pod(sandbox_id) / "ns" / kind

    def infra_bundle(self, sandbox_id: str) -> Path:
        """Bundle of the sandbox's own container, of runtimes that have one."""
        return self.pod(sandbox_id) / "infra"

    def bundle(self, container_id: str) -> Path:
        """OCI bundle of a container."""
        return self.state / "containers" / container_id

    def rootfs(self, container_id: str) -> Path:
        """Where the root file system of a container is mounted."""
        return self.bundle(container_id) / "rootfs"

    @property
    def seccomp(self) -> Path:
        """Sockets and reports of seccomp listeners."""
        return self.state / "seccomp"

    def seccomp_listener(self, container_id: str) -> Path:
        """Socket to which the runtime sends the descriptor of a filter."""
        # Half of the id: a socket's path has 107 bytes at most.
        return self.seccomp / f"{container_id[:32]}.sock"

    def seccomp_report(self, container_id: str) -> Path:
        """What the holder of a filter has seen."""
        return self.seccomp / f"{container_id[:32]}.json"

    def seccomp_told(self, container_id: str) -> Path:
        """What of the report has been counted and logged."""
        return self.seccomp / f"{container_id[:32]}.told"

    def seccomp_wish(self, sandbox_id: str) -> Path:
        """Names of the containers of a pod whose next start is to be recorded."""
        return self.pod(sandbox_id) / "record-seccomp"

    @property
    def exits(self) -> Path:
        return self.state / "exits"
