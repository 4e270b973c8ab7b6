"""The metrics that a cgroup alone tells: CPU, memory, block devices, pressure, and their limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from noded.edge.cri.metric_family import COUNTER, GAUGE, NS, Family, Values
from noded.host.cgroup_detail import CgroupDetail
from noded.host.cgroup_stats import Pressure
from noded.proto.runtime import v1


def _cgroup(name: str, help_: str, kind: v1.MetricType, pick: Callable[[CgroupDetail], int | None]) -> Family:
    return Family(name, help_, kind, of_cgroup=_one(pick))


def _one(pick: Callable[[CgroupDetail], int | None]) -> Callable[[CgroupDetail], Values]:
    return lambda detail: (((), pick(detail)),)


def _seconds(nanoseconds: int | None) -> int | None:
    return None if nanoseconds is None else nanoseconds // NS


def _unlimited_is_zero(limit: int | None) -> int:
    return 0 if limit is None else limit


_PRESSURES: tuple[tuple[str, str, Callable[[CgroupDetail], Pressure | None]], ...] = (
    ("cpu", "a CPU", lambda d: d.usage.cpu_pressure),
    ("io", "I/O", lambda d: d.usage.io_pressure),
    ("memory", "memory", lambda d: d.usage.memory_pressure),
)


def _pressures() -> Iterator[Family]:
    """Pressure stall information (accounting/psi.rst): two counters for each resource."""
    for resource, awaited, pick in _PRESSURES:
        for share, tasks, full in (("stalled", "all tasks", True), ("waiting", "some task", False)):
            yield Family(
                f"container_pressure_{resource}_{share}_seconds_total",
                f"Time in which {tasks} waited for {awaited}, in seconds.",
                COUNTER,
                of_cgroup=_stall_seconds(pick, full=full),
            )


def _stall_seconds(
    pick: Callable[[CgroupDetail], Pressure | None], *, full: bool
) -> Callable[[CgroupDetail], Values]:
    def seconds(detail: CgroupDetail) -> int | None:
        pressure = pick(detail)
        if pressure is None:
            return None
        stall = pressure.full if full else pressure.some
        return None if stall is None else stall.total_us // 1_000_000

    return _one(seconds)


def _blkio(detail: CgroupDetail) -> Values:
    for device in detail.devices:
        place = (f"/dev/block/{device.major}:{device.minor}", str(device.major), str(device.minor))
        yield (*place, "Read"), device.read_bytes
        yield (*place, "Write"), device.write_bytes


def _io(name: str) -> Callable[[CgroupDetail], Values]:
    def values(detail: CgroupDetail) -> Values:
        for device in detail.devices:
            yield (f"/dev/block/{device.major}:{device.minor}",), getattr(device, name)

    return values


def _huge(detail: CgroupDetail) -> Values:
    return (((page.page_size,), page.usage_bytes) for page in detail.huge_pages)


def _huge_peak(detail: CgroupDetail) -> Values:
    return (((page.page_size,), page.max_usage_bytes) for page in detail.huge_pages)


def _failures(detail: CgroupDetail) -> Values:
    usage = detail.usage
    yield ("pgfault", "container"), detail.faults
    yield ("pgmajfault", "container"), detail.major_faults
    yield ("pgfault", "hierarchy"), usage.page_faults
    yield ("pgmajfault", "hierarchy"), usage.major_page_faults


OF_CGROUPS: tuple[Family, ...] = (
    Family(
        "container_blkio_device_usage_total",
        "Bytes read from and written to each block device.",
        COUNTER,
        ("device", "major", "minor", "operation"),
        of_cgroup=_blkio,
    ),
    _cgroup(
        "container_cpu_cfs_periods_total",
        "Periods of the CPU bandwidth control that have passed.",
        COUNTER,
        lambda d: d.periods,
    ),
    _cgroup(
        "container_cpu_cfs_throttled_periods_total",
        "Periods in which the CPU limit was reached.",
        COUNTER,
        lambda d: d.throttled_periods,
    ),
    _cgroup(
        "container_cpu_cfs_throttled_seconds_total",
        "Time for which tasks waited because the CPU limit was reached, in seconds.",
        COUNTER,
        lambda d: _seconds(d.throttled_ns),
    ),
    _cgroup(
        "container_cpu_system_seconds_total",
        "CPU time spent in the kernel, in seconds.",
        COUNTER,
        lambda d: _seconds(d.system_ns),
    ),
    _cgroup(
        "container_cpu_usage_seconds_total",
        "CPU time used on all CPUs together, in seconds.",
        COUNTER,
        lambda d: _seconds(d.usage.cpu_ns),
    ),
    _cgroup(
        "container_cpu_user_seconds_total",
        "CPU time spent in programs, in seconds.",
        COUNTER,
        lambda d: _seconds(d.user_ns),
    ),
    Family(
        "container_fs_reads_bytes_total",
        "Bytes read from each block device.",
        COUNTER,
        ("device",),
        of_cgroup=_io("read_bytes"),
    ),
    Family(
        "container_fs_reads_total",
        "Reads completed by each block device.",
        COUNTER,
        ("device",),
        of_cgroup=_io("reads"),
    ),
    Family(
        "container_fs_writes_bytes_total",
        "Bytes written to each block device.",
        COUNTER,
        ("device",),
        of_cgroup=_io("write_bytes"),
    ),
    Family(
        "container_fs_writes_total",
        "Writes completed by each block device.",
        COUNTER,
        ("device",),
        of_cgroup=_io("writes"),
    ),
    Family(
        "container_hugetlb_max_usage_bytes",
        "Largest use of huge pages so far, by page size.",
        GAUGE,
        ("pagesize",),
        of_cgroup=_huge_peak,
    ),
    Family(
        "container_hugetlb_usage_bytes",
        "Huge pages in use, by page size.",
        GAUGE,
        ("pagesize",),
        of_cgroup=_huge,
    ),
    _cgroup("container_memory_cache", "Page cache, in bytes.", GAUGE, lambda d: d.cache_bytes),
    _cgroup(
        "container_memory_failcnt",
        "How often the memory limit was reached.",
        COUNTER,
        lambda d: d.limit_hits,
    ),
    Family(
        "container_memory_failures_total",
        "Page faults, minor and major, of the cgroup alone and with those below it.",
        COUNTER,
        ("failure_type", "scope"),
        of_cgroup=_failures,
    ),
    _cgroup(
        "container_memory_kernel_usage",
        "Memory that the kernel uses for the container, in bytes.",
        GAUGE,
        lambda d: d.kernel_bytes,
    ),
    _cgroup(
        "container_memory_mapped_file",
        "Files mapped into memory, in bytes.",
        GAUGE,
        lambda d: d.mapped_file_bytes,
    ),
    _cgroup(
        "container_memory_max_usage_bytes",
        "Largest memory use so far, in bytes.",
        GAUGE,
        lambda d: d.max_usage_bytes,
    ),
    _cgroup("container_memory_rss", "Anonymous memory, in bytes.", GAUGE, lambda d: d.usage.rss_bytes),
    _cgroup("container_memory_swap", "Swap in use, in bytes.", GAUGE, lambda d: d.usage.swap_bytes),
    _cgroup(
        "container_memory_usage_bytes",
        "Memory in use with page cache, in bytes.",
        GAUGE,
        lambda d: d.usage.memory_bytes,
    ),
    _cgroup(
        "container_memory_working_set_bytes",
        "Memory in use without inactive page cache, in bytes.",
        GAUGE,
        lambda d: d.usage.working_set_bytes,
    ),
    _cgroup(
        "container_oom_events_total",
        "Processes killed because memory ran out.",
        COUNTER,
        lambda d: d.oom_kills,
    ),
    *_pressures(),
    _cgroup("container_processes", "Processes of the container.", GAUGE, lambda d: len(d.pids)),
    _cgroup(
        "container_spec_cpu_period",
        "Period of the CPU bandwidth control, in microseconds.",
        GAUGE,
        lambda d: d.cpu_period_us,
    ),
    _cgroup(
        "container_spec_cpu_quota",
        "CPU time allowed in each period, in microseconds; absent without a limit.",
        GAUGE,
        lambda d: d.cpu_quota_us,
    ),
    _cgroup("container_spec_cpu_shares", "CPU share of the container.", GAUGE, lambda d: d.cpu_shares),
    _cgroup(
        "container_spec_memory_limit_bytes",
        "Memory limit, in bytes; 0 without a limit.",
        GAUGE,
        lambda d: _unlimited_is_zero(d.usage.memory_limit_bytes),
    ),
    _cgroup(
        "container_spec_memory_reservation_limit_bytes",
        "Memory that is spared from reclaim, in bytes; 0 without a setting.",
        GAUGE,
        lambda d: _unlimited_is_zero(d.memory_reservation_bytes),
    ),
    _cgroup(
        "container_spec_memory_swap_limit_bytes",
        "Swap limit, in bytes, on cgroup v1 with the memory limit; 0 without a limit.",
        GAUGE,
        lambda d: _unlimited_is_zero(d.memory_swap_limit_bytes),
    ),
    _cgroup("container_threads", "Threads of the container.", GAUGE, lambda d: d.tasks),
    _cgroup(
        "container_threads_max",
        "Threads that the container may have; 0 without a limit.",
        GAUGE,
        lambda d: None if d.tasks is None else _unlimited_is_zero(d.tasks_limit),
    ),
)
