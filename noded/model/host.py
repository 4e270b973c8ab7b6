"""What the node can do, read once at start and passed to pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class CgroupMode(StrEnum):
    """Which cgroup hierarchy carries the controllers."""

    V1 = "v1"
    HYBRID = "hybrid"  # controllers on v1, an additional cgroup2 mount beside them
    V2 = "v2"


class CgroupDriver(StrEnum):
    """Who makes cgroups: noded by itself, or systemd when asked."""

    CGROUPFS = "cgroupfs"
    SYSTEMD = "systemd"


@dataclass(frozen=True, slots=True)
class HostFacts:
    """Facts of the node that spec generation and the engine depend on.

    Args:
        bounding_capabilities: CAP_ names that noded itself may grant (its own bounding set).
        may_lower_oom_score_adj: whether CAP_SYS_RESOURCE allows values below the daemon's own.
        oom_score_adj: the daemon's own value, the lowest it may set without that capability.
        swap_accounting: whether cgroups limit swap (v1: memory.memsw.limit_in_bytes exists in the
            memory hierarchy, v2: memory.swap.max exists in a child cgroup).
        fips: the kernel is in FIPS mode.
    """

    cgroup_mode: CgroupMode
    cgroup_driver: CgroupDriver
    cgroup_controllers: frozenset[str]
    kernel: tuple[int, int]
    architecture: str
    bounding_capabilities: frozenset[str]
    may_lower_oom_score_adj: bool
    oom_score_adj: int
    apparmor: bool
    selinux: bool
    boot_id: str
    swap_accounting: bool = False
    fips: bool = False
