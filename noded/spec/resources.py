"""Limits: CRI `LinuxContainerResources` to OCI `linux.resources` (config-linux.md).

Values are in the CRI's (that is cgroup v1's) terms on both cgroup versions: runtimes convert
shares to weights and memory+swap to swap themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from noded.model.host import CgroupMode, HostFacts
from noded.model.pod import Resources
from noded.spec.inputs import Built


def linux_resources(resources: Resources | None, host: HostFacts, *, pids_limit: int | None = None) -> Built:
    """`linux.resources` without devices; 0 and "" in `resources` mean "leave at the default".

    Args:
        pids_limit: 0 = unlimited, None = do not set.
    """
    value: dict[str, Any] = {}
    warnings: list[str] = []
    if resources is not None:
        if cpu := _cpu(resources):
            value["cpu"] = cpu
        if memory := _memory(resources, host, warnings):
            value["memory"] = memory
        if hugepages := _hugepages(resources, host, warnings):
            value["hugepageLimits"] = hugepages
        if resources.unified:
            value["unified"] = {key: resources.unified[key] for key in sorted(resources.unified)}
    if pids_limit is not None:
        if "pids" in host.cgroup_controllers:
            value["pids"] = {"limit": pids_limit if pids_limit > 0 else -1}
        elif pids_limit > 0:
            warnings.append("the node has no pids cgroup controller: pids_limit is not enforced")
    return Built(value, tuple(warnings))


def merge_resources(current: Resources | None, changes: Resources) -> Resources:
    """The limits after an update: what `changes` sets, and `current` where it says nothing."""
    if current is None:
        return changes
    hugepages = {limit.page_size: limit for limit in (*current.hugepage_limits, *changes.hugepage_limits)}
    return Resources(
        cpu_period_us=changes.cpu_period_us or current.cpu_period_us,
        cpu_quota_us=changes.cpu_quota_us or current.cpu_quota_us,
        cpu_shares=changes.cpu_shares or current.cpu_shares,
        memory_limit_bytes=changes.memory_limit_bytes or current.memory_limit_bytes,
        memory_swap_limit_bytes=changes.memory_swap_limit_bytes or current.memory_swap_limit_bytes,
        oom_score_adj=changes.oom_score_adj or current.oom_score_adj,
        cpuset_cpus=changes.cpuset_cpus or current.cpuset_cpus,
        cpuset_mems=changes.cpuset_mems or current.cpuset_mems,
        hugepage_limits=tuple(hugepages[size] for size in sorted(hugepages)),
        unified={**current.unified, **changes.unified},
    )


def pod_total(resources: Resources | None, overhead: Resources | None) -> Resources | None:
    """The limits of a pod as a whole: those of its containers and, where they are limits, its overhead.

    CPU quotas are added only when both are of one period.
    """
    if resources is None or overhead is None:
        return resources
    quota, memory = resources.cpu_quota_us, resources.memory_limit_bytes
    if quota > 0 and overhead.cpu_quota_us > 0 and resources.cpu_period_us == overhead.cpu_period_us:
        quota += overhead.cpu_quota_us
    if memory > 0:
        memory += overhead.memory_limit_bytes
    swap = resources.memory_swap_limit_bytes
    if swap > 0:
        swap += overhead.memory_limit_bytes
    shares = resources.cpu_shares + overhead.cpu_shares if resources.cpu_shares else 0
    return replace(
        resources,
        cpu_quota_us=quota,
        cpu_shares=shares,
        memory_limit_bytes=memory,
        memory_swap_limit_bytes=swap,
    )


def overlay(changes: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """An object for a runtime's `update` with the values of another one over it."""
    result = dict(changes)
    for key, value in more.items():
        result[key] = {**result.get(key, {}), **value} if isinstance(value, Mapping) else value
    return result


def update_resources(
    changes: Resources, host: HostFacts, *, current: Resources | None = None
) -> dict[str, Any]:
    """The object for a runtime's `update`: absent keys leave the running container as it is.

    Args:
        current: the limits so far; without them an update of memory alone takes the swap limit
            that a new container would get.
    """
    value = linux_resources(changes, host).value
    if "memory" in value:
        merged = linux_resources(merge_resources(current, changes), host).value
        value["memory"] = merged["memory"]
    return value


def oom_score_adj(asked: int, host: HostFacts) -> Built:
    """`{"oomScoreAdj": n}`, raised to what the daemon may set.

    It is always set: a process that inherited the daemon's own value would be nearly unkillable.
    """
    if asked < host.oom_score_adj and not host.may_lower_oom_score_adj:
        warning = (
            f"oom_score_adj {asked} is below the daemon's own {host.oom_score_adj} and the daemon lacks "
            f"CAP_SYS_RESOURCE: {host.oom_score_adj} is used"
        )
        return Built({"oomScoreAdj": host.oom_score_adj}, (warning,))
    return Built({"oomScoreAdj": asked})


def _cpu(resources: Resources) -> dict[str, Any]:
    cpu: dict[str, Any] = {}
    if resources.cpu_shares:
        cpu["shares"] = resources.cpu_shares
    if resources.cpu_quota_us:
        cpu["quota"] = resources.cpu_quota_us
    if resources.cpu_period_us:
        cpu["period"] = resources.cpu_period_us
    if resources.cpuset_cpus:
        cpu["cpus"] = resources.cpuset_cpus
    if resources.cpuset_mems:
        cpu["mems"] = resources.cpuset_mems
    return cpu


def _memory(resources: Resources, host: HostFacts, warnings: list[str]) -> dict[str, Any]:
    memory: dict[str, Any] = {}
    limit, swap = resources.memory_limit_bytes, resources.memory_swap_limit_bytes
    if limit:
        memory["limit"] = limit
    if host.swap_accounting:
        # A limit on memory alone would let the container take as much swap as it likes.
        if swap or limit:
            memory["swap"] = swap or limit
    elif swap and swap != limit:
        warnings.append("the node does not account swap: memory_swap_limit_in_bytes is not enforced")
    return memory


def _hugepages(resources: Resources, host: HostFacts, warnings: list[str]) -> list[dict[str, Any]]:
    limits = {limit.page_size: limit.limit_bytes for limit in resources.hugepage_limits}
    if not limits:
        return []
    if "hugetlb" not in host.cgroup_controllers:
        # The kubelet sends a limit of 0 for every size that it does not grant.
        if any(limits.values()):
            warnings.append("the node has no hugetlb cgroup controller: hugepage_limits are not enforced")
        return []
    return [{"pageSize": size, "limit": limits[size]} for size in sorted(limits)]


def supports_unified(host: HostFacts) -> bool:
    """Whether `unified` (cgroup v2 file names) can be applied at all."""
    return host.cgroup_mode is CgroupMode.V2
