"""Limits between NRI, the OCI spec and the CRI's form. Pure."""

from __future__ import annotations

from typing import Any, Final

from noded.errors import FailedPrecondition
from noded.model.pod import HugepageLimit, Resources
from noded.proto.nri.pkg.api import v1alpha1 as api

_MEMORY: Final = {
    "limit": "limit",
    "reservation": "reservation",
    "swap": "swap",
    "kernel": "kernel",
    "kernelTCP": "kernel_tcp",
    "swappiness": "swappiness",
    "disableOOMKiller": "disable_oom_killer",
    "useHierarchy": "use_hierarchy",
}
_CPU: Final = {
    "shares": "shares",
    "quota": "quota",
    "period": "period",
    "realtimeRuntime": "realtime_runtime",
    "realtimePeriod": "realtime_period",
}
_CPUSET: Final = {"cpus": "cpus", "mems": "mems"}
_OPTIONAL: Final = {
    "shares": api.OptionalUInt64,
    "period": api.OptionalUInt64,
    "realtimePeriod": api.OptionalUInt64,
    "swappiness": api.OptionalUInt64,
    "disableOOMKiller": api.OptionalBool,
    "useHierarchy": api.OptionalBool,
}


def to_oci(limits: api.LinuxResources, *, swap_accounting: bool) -> dict[str, Any]:
    """What `limits` sets, as part of `linux.resources`; device rules are not among it.

    Raises: FailedPrecondition for a block I/O or RDT class: noded has no table of classes.
    """
    for name in ("blockio_class", "rdt_class"):
        wanted = getattr(limits, name)
        if wanted is not None and wanted.value:
            raise FailedPrecondition(
                f"an NRI plugin wants {name} {wanted.value!r}: noded has no classes, let the plugin set "
                "cgroup or RDT values themselves"
            )
    value: dict[str, Any] = {}
    if limits.cpu is not None:
        cpu = _set(limits.cpu, _CPU) | {
            key: text for key, name in _CPUSET.items() if (text := getattr(limits.cpu, name))
        }
        if cpu:
            value["cpu"] = cpu
    if limits.memory is not None:
        memory = _set(limits.memory, _MEMORY)
        if not swap_accounting:
            memory.pop("swap", None)
        elif "limit" in memory:
            memory.setdefault("swap", memory["limit"])
        if memory:
            value["memory"] = memory
    if limits.hugepage_limits:
        value["hugepageLimits"] = [
            {"pageSize": one.page_size, "limit": one.limit} for one in limits.hugepage_limits
        ]
    if limits.unified:
        value["unified"] = dict(limits.unified)
    if limits.pids is not None:
        value["pids"] = {"limit": limits.pids.limit}
    return value


def _set(message: Any, names: dict[str, str]) -> dict[str, Any]:
    return {key: one.value for key, name in names.items() if (one := getattr(message, name)) is not None}


def from_oci(value: dict[str, Any]) -> api.LinuxResources:
    """`linux.resources` of a spec as plugins see it."""
    cpu, memory = value.get("cpu", {}), value.get("memory", {})
    limits = api.LinuxResources(cpu=api.LinuxCpu(), memory=api.LinuxMemory())
    for given, names, into in ((cpu, _CPU, limits.cpu), (memory, _MEMORY, limits.memory)):
        for key, name in names.items():
            if key in given:
                setattr(into, name, _OPTIONAL.get(key, api.OptionalInt64)(value=given[key]))
    assert limits.cpu is not None
    limits.cpu.cpus, limits.cpu.mems = cpu.get("cpus", ""), cpu.get("mems", "")
    limits.hugepage_limits = [
        api.HugepageLimit(page_size=one["pageSize"], limit=one["limit"])
        for one in value.get("hugepageLimits", ())
    ]
    limits.unified = dict(value.get("unified", {}))
    if "limit" in value.get("pids", {}):
        limits.pids = api.LinuxPids(limit=value["pids"]["limit"])
    limits.devices = [
        api.LinuxDeviceCgroup(
            allow=rule.get("allow", False),
            type=rule.get("type", ""),
            major=api.OptionalInt64(value=rule["major"]) if "major" in rule else None,
            minor=api.OptionalInt64(value=rule["minor"]) if "minor" in rule else None,
            access=rule.get("access", ""),
        )
        for rule in value.get("devices", ())
    ]
    return limits


def from_cri(resources: Resources | None) -> api.LinuxResources | None:
    """The CRI's limits as plugins see them: what is not set is absent."""
    if resources is None:
        return None
    cpu = {"shares": resources.cpu_shares, "quota": resources.cpu_quota_us, "period": resources.cpu_period_us}
    memory = {"limit": resources.memory_limit_bytes, "swap": resources.memory_swap_limit_bytes}
    return from_oci(
        {
            "cpu": {key: value for key, value in cpu.items() if value}
            | {"cpus": resources.cpuset_cpus, "mems": resources.cpuset_mems},
            "memory": {key: value for key, value in memory.items() if value},
            "hugepageLimits": [
                {"pageSize": one.page_size, "limit": one.limit_bytes} for one in resources.hugepage_limits
            ],
            "unified": resources.unified,
        }
    )


def to_cri(limits: api.LinuxResources, *, oom_score_adj: int = 0) -> Resources:
    """What the CRI can say of `limits`; the rest of them is not in the container's status."""
    cpu, memory = limits.cpu or api.LinuxCpu(), limits.memory or api.LinuxMemory()

    def number(one: Any) -> int:
        return int(one.value) if one is not None else 0

    return Resources(
        cpu_period_us=number(cpu.period),
        cpu_quota_us=number(cpu.quota),
        cpu_shares=number(cpu.shares),
        memory_limit_bytes=number(memory.limit),
        memory_swap_limit_bytes=number(memory.swap),
        oom_score_adj=oom_score_adj,
        cpuset_cpus=cpu.cpus,
        cpuset_mems=cpu.mems,
        hugepage_limits=tuple(HugepageLimit(one.page_size, one.limit) for one in limits.hugepage_limits),
        unified=dict(limits.unified),
    )
