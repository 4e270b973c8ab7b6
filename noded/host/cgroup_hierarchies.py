"""Which cgroup hierarchies this node has, and where they are mounted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from noded.errors import FailedPrecondition
from noded.host.mountinfo import MountEntry, parse_mountinfo, read_mountinfo
from noded.model.host import CgroupMode

_ROOT = "/sys/fs/cgroup"

V1_CONTROLLERS = frozenset(
    {"blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "hugetlb", "memory", "misc", "net_cls",
     "net_prio", "perf_event", "pids", "rdma"}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One mounted hierarchy. `controllers` of v1: its controllers, or one `name=...`."""

    mount_point: Path
    controllers: frozenset[str]
    v2: bool = False

    def path(self, place: str) -> Path:
        """Return the directory of a cgroup in this hierarchy."""
        return self.mount_point / place.lstrip("/")


def hierarchies_in(entries: Sequence[MountEntry]) -> tuple[Hierarchy, ...]:
    """Pick the hierarchies out of a mount table; v2 controllers are left for the caller to read.

    Mounts outside /sys/fs/cgroup (those of containers) do not count, and of several mounts of one
    hierarchy the last is visible.
    """
    found: dict[str, Hierarchy] = {}
    for entry in entries:
        if entry.mount_point != _ROOT and not entry.mount_point.startswith(_ROOT + "/"):
            continue
        if entry.fstype == "cgroup2":
            found[entry.mount_point] = Hierarchy(Path(entry.mount_point), frozenset(), v2=True)
        elif entry.fstype == "cgroup":
            names = {
                option
                for option in entry.super_options
                if option in V1_CONTROLLERS or option.startswith("name=")
            }
            if names:
                found[entry.mount_point] = Hierarchy(Path(entry.mount_point), frozenset(names))
    unique: dict[frozenset[str] | str, Hierarchy] = {}
    for hierarchy in found.values():
        unique.setdefault("v2" if hierarchy.v2 else hierarchy.controllers, hierarchy)
    return tuple(unique.values())


def mode_of(hierarchies: Sequence[Hierarchy]) -> CgroupMode:
    """Tell the mode.

    Raises: FailedPrecondition when no cgroup file system is mounted.
    """
    v1 = any(not hierarchy.v2 and hierarchy.controllers & V1_CONTROLLERS for hierarchy in hierarchies)
    v2 = any(hierarchy.v2 for hierarchy in hierarchies)
    if not v1 and not v2:
        raise FailedPrecondition(f"no cgroup file system is mounted below {_ROOT}: mount one")
    if not v1:
        return CgroupMode.V2
    return CgroupMode.HYBRID if v2 else CgroupMode.V1


def read_hierarchies() -> tuple[Hierarchy, ...]:
    """Return what is mounted now."""
    return hierarchies_in(parse_mountinfo(read_mountinfo()))


def detect() -> tuple[CgroupMode, frozenset[str]]:
    """Return the mode and the controllers that containers can be given.

    Raises: FailedPrecondition when no cgroup file system is mounted.
    """
    hierarchies = read_hierarchies()
    mode = mode_of(hierarchies)
    controllers: set[str] = set()
    for hierarchy in hierarchies:
        if hierarchy.v2 and mode is CgroupMode.V2:
            controllers.update((hierarchy.mount_point / "cgroup.controllers").read_text().split())
        elif not hierarchy.v2:
            controllers.update(hierarchy.controllers & V1_CONTROLLERS)
    return mode, frozenset(controllers)


def swap_accounting() -> bool:
    """Tell whether swap can be limited: v2 shows memory.swap.max in every cgroup but the root."""
    for hierarchy in read_hierarchies():
        if "memory" in hierarchy.controllers:
            return (hierarchy.mount_point / "memory.memsw.limit_in_bytes").exists()
        if hierarchy.v2 and next(hierarchy.mount_point.glob("*/memory.swap.max"), None) is not None:
            return True
    return False


def parse_own(text: str) -> dict[str, str]:
    """Parse /proc/PID/cgroup: controller, `name=...` or "" (v2) to place."""
    own = {}
    for line in text.splitlines():
        _, controllers, place = line.split(":", 2)
        for controller in controllers.split(","):
            own[controller] = place
    return own
