"""What a shim's Stats call returns: cgroup metrics of version 1 or 2, as far as noded uses them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from noded.wire.ttrpc_protobuf import Message, integer, message
from noded.wire.ttrpc_task import Any


@dataclass(frozen=True, slots=True)
class TaskStats:
    """Usage of one task. None = not told.

    Args:
        cpu_ns: CPU time used since the task began.
        memory_working_set_bytes: usage less inactive page cache, as kubelet computes it.
    """

    cpu_ns: int | None = None
    memory_usage_bytes: int | None = None
    memory_working_set_bytes: int | None = None
    memory_limit_bytes: int | None = None
    pids: int | None = None


@dataclass(frozen=True, slots=True)
class PidsV1(Message):
    NAME: ClassVar[str] = "io.containerd.cgroups.v1.PidsStat"
    current: int = integer(1, "uint64")
    limit: int = integer(2, "uint64")


@dataclass(frozen=True, slots=True)
class CpuUsageV1(Message):
    """`total` in nanoseconds."""

    NAME: ClassVar[str] = "io.containerd.cgroups.v1.CPUUsage"
    total: int = integer(1, "uint64")


@dataclass(frozen=True, slots=True)
class CpuV1(Message):
    NAME: ClassVar[str] = "io.containerd.cgroups.v1.CPUStat"
    usage: CpuUsageV1 | None = message(1, CpuUsageV1)


@dataclass(frozen=True, slots=True)
class MemoryEntryV1(Message):
    NAME: ClassVar[str] = "io.containerd.cgroups.v1.MemoryEntry"
    limit: int = integer(1, "uint64")
    usage: int = integer(2, "uint64")


@dataclass(frozen=True, slots=True)
class MemoryV1(Message):
    NAME: ClassVar[str] = "io.containerd.cgroups.v1.MemoryStat"
    total_inactive_file: int = integer(30, "uint64")
    usage: MemoryEntryV1 | None = message(33, MemoryEntryV1)


@dataclass(frozen=True, slots=True)
class MetricsV1(Message):
    NAME: ClassVar[str] = "io.containerd.cgroups.v1.Metrics"
    pids: PidsV1 | None = message(2, PidsV1)
    cpu: CpuV1 | None = message(3, CpuV1)
    memory: MemoryV1 | None = message(4, MemoryV1)


@dataclass(frozen=True, slots=True)
class PidsV2(Message):
    NAME: ClassVar[str] = "io.containerd.cgroups.v2.PidsStat"
    current: int = integer(1, "uint64")
    limit: int = integer(2, "uint64")


@dataclass(frozen=True, slots=True)
class CpuV2(Message):
    NAME: ClassVar[str] = "io.containerd.cgroups.v2.CPUStat"
    usage_usec: int = integer(1, "uint64")


@dataclass(frozen=True, slots=True)
class MemoryV2(Message):
    NAME: ClassVar[str] = "io.containerd.cgroups.v2.MemoryStat"
    inactive_file: int = integer(13, "uint64")
    usage: int = integer(32, "uint64")
    usage_limit: int = integer(33, "uint64")


@dataclass(frozen=True, slots=True)
class MetricsV2(Message):
    NAME: ClassVar[str] = "io.containerd.cgroups.v2.Metrics"
    pids: PidsV2 | None = message(1, PidsV2)
    cpu: CpuV2 | None = message(2, CpuV2)
    memory: MemoryV2 | None = message(4, MemoryV2)


def parse_stats(stats: Any) -> TaskStats:
    """Return the usage in either version of metrics.

    Raises: ValueError when it is neither, or broken.
    """
    name = stats.type_url.rpartition("/")[2]
    if name == MetricsV1.NAME:
        return _from_v1(MetricsV1.decode(stats.value))
    if name == MetricsV2.NAME:
        return _from_v2(MetricsV2.decode(stats.value))
    raise ValueError(f"statistics of the unknown type {stats.type_url!r}")


def _from_v1(metrics: MetricsV1) -> TaskStats:
    memory = metrics.memory
    entry = memory.usage if memory is not None else None
    usage = None if entry is None else entry.usage
    return TaskStats(
        cpu_ns=metrics.cpu.usage.total if metrics.cpu is not None and metrics.cpu.usage is not None else None,
        memory_usage_bytes=usage,
        memory_working_set_bytes=_working_set(usage, memory.total_inactive_file if memory else 0),
        memory_limit_bytes=None if entry is None else entry.limit,
        pids=None if metrics.pids is None else metrics.pids.current,
    )


def _from_v2(metrics: MetricsV2) -> TaskStats:
    memory = metrics.memory
    usage = None if memory is None else memory.usage
    return TaskStats(
        cpu_ns=None if metrics.cpu is None else metrics.cpu.usage_usec * 1000,
        memory_usage_bytes=usage,
        memory_working_set_bytes=_working_set(usage, memory.inactive_file if memory else 0),
        memory_limit_bytes=None if memory is None else memory.usage_limit,
        pids=None if metrics.pids is None else metrics.pids.current,
    )


def _working_set(usage: int | None, inactive: int) -> int | None:
    return None if usage is None else max(0, usage - inactive)
