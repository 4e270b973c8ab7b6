"""A host as unit tests need one that run nothing on it."""

from __future__ import annotations

from noded.model.host import CgroupDriver, CgroupMode, HostFacts

PLAIN_HOST = HostFacts(
    cgroup_mode=CgroupMode.V2,
    cgroup_driver=CgroupDriver.CGROUPFS,
    cgroup_controllers=frozenset(),
    kernel=(6, 1),
    architecture="x86_64",
    bounding_capabilities=frozenset(),
    may_lower_oom_score_adj=False,
    oom_score_adj=0,
    apparmor=False,
    selinux=False,
    boot_id="b",
)
