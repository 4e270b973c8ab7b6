"""Control groups: hierarchy, controllers, driver."""

from __future__ import annotations

from collections.abc import Iterator

from noded.checks.facts import Facts
from noded.checks.result import Result, fail, ok, warn

_NEEDED = frozenset({"cpu", "cpuset", "memory", "pids"})


def judge(facts: Facts) -> Iterator[Result]:
    """Whether limits of pods can be set, and by whom."""
    cgroups = facts.cgroups
    if cgroups.problem:
        yield fail(
            "cgroups.mounted",
            cgroups.problem,
            "each pod has a cgroup, where its limits are",
            "mount -t cgroup2 cgroup2 /sys/fs/cgroup",
        )
        return
    if cgroups.mode == "v2":
        yield ok("cgroups.version", "version 2")
    else:
        yield warn(
            "cgroups.version",
            f"version 1 ({cgroups.mode})" if cgroups.mode == "hybrid" else "version 1",
            "Kubernetes no longer develops for version 1 (kubelet 1.35 refuses it unless told otherwise); "
            "memory QoS, swap limits and pressure metrics need version 2",
            "boot with systemd.unified_cgroup_hierarchy=1 on the kernel command line",
        )
    if missing := sorted(_NEEDED - cgroups.controllers):
        yield fail(
            "cgroups.controllers",
            f"no controller for {', '.join(missing)}",
            "limits of pods would not be kept",
            "remove cgroup_disable= from the kernel command line, and on ARM boards add cgroup_enable=memory",
        )
    else:
        yield ok("cgroups.controllers", ", ".join(sorted(cgroups.controllers)))
    if not cgroups.driver:
        yield fail(
            "cgroups.driver",
            f"cgroup_driver is {cgroups.wanted_driver}, but systemd does not run here",
            "noded does not start",
            'set cgroup_driver = "auto" in /etc/noded/noded.toml',
        )
    elif cgroups.systemd and cgroups.driver == "cgroupfs":
        yield warn(
            "cgroups.driver",
            "cgroupfs under systemd",
            "two programs write one hierarchy; systemd may move or remove what noded made",
            'set cgroup_driver = "auto" in /etc/noded/noded.toml, and cgroupDriver: systemd for kubelet',
        )
    else:
        yield ok("cgroups.driver", cgroups.driver)
