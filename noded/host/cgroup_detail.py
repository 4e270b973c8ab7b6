"""What metrics tell of a cgroup beyond its usage: limits, throttling, devices. Pure, both versions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from noded.host.cgroup_stats import (
    CgroupUsage,
    DeviceIo,
    Read,
    oom_kills,
    parse_blkio,
    parse_io_stat,
    parse_keyed,
    parse_limit_file,
    parse_number,
    parse_pids,
)

# Kernel memory of v2 before Linux 5.18, which has no "kernel" in memory.stat (cgroup-v2.rst).
_KERNEL_PARTS = (b"kernel_stack", b"pagetables", b"percpu", b"slab", b"sock", b"vmalloc")


@dataclass(frozen=True, slots=True)
class HugePages:
    """Huge pages of one size, e.g. "2MB"; the peak is known on v1 only."""

    page_size: str
    usage_bytes: int
    max_usage_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class CgroupDetail:
    """Accounting of a cgroup; None = the kernel does not say, limits: None = unlimited.

    Args:
        faults, major_faults: of the cgroup alone where v1 tells them apart, else as in `usage`.
        memory_swap_limit_bytes: v1: memory and swap together; v2: swap alone.
        pids: processes of this cgroup and those below it.
        tasks: threads and processes.
    """

    usage: CgroupUsage
    user_ns: int | None = None
    system_ns: int | None = None
    periods: int | None = None
    throttled_periods: int | None = None
    throttled_ns: int | None = None
    cache_bytes: int | None = None
    mapped_file_bytes: int | None = None
    kernel_bytes: int | None = None
    max_usage_bytes: int | None = None
    limit_hits: int | None = None
    oom_kills: int | None = None
    faults: int | None = None
    major_faults: int | None = None
    cpu_period_us: int | None = None
    cpu_quota_us: int | None = None
    cpu_shares: int | None = None
    memory_reservation_bytes: int | None = None
    memory_swap_limit_bytes: int | None = None
    tasks: int | None = None
    tasks_limit: int | None = None
    devices: tuple[DeviceIo, ...] = ()
    huge_pages: tuple[HugePages, ...] = ()
    pids: tuple[int, ...] = ()


def detail_v1(
    read: Read, usage: CgroupUsage, pids: tuple[int, ...], page_sizes: Sequence[str]
) -> CgroupDetail:
    """Detail from v1 controllers. `read` is asked again for files that `usage` was made from."""
    stat = parse_keyed(read("memory", "memory.stat") or b"")
    cpu = parse_keyed(read("cpu", "cpu.stat") or b"")
    quota = parse_number(read("cpu", "cpu.cfs_quota_us"))
    return CgroupDetail(
        usage=usage,
        user_ns=parse_number(read("cpuacct", "cpuacct.usage_user")),
        system_ns=parse_number(read("cpuacct", "cpuacct.usage_sys")),
        periods=cpu.get(b"nr_periods"),
        throttled_periods=cpu.get(b"nr_throttled"),
        throttled_ns=cpu.get(b"throttled_time"),
        cache_bytes=stat.get(b"total_cache"),
        mapped_file_bytes=stat.get(b"total_mapped_file"),
        kernel_bytes=parse_number(read("memory", "memory.kmem.usage_in_bytes")),
        max_usage_bytes=parse_number(read("memory", "memory.max_usage_in_bytes")),
        limit_hits=parse_number(read("memory", "memory.failcnt")),
        oom_kills=_oom_kills(read("memory", "memory.oom_control")),
        faults=stat.get(b"pgfault"),
        major_faults=stat.get(b"pgmajfault"),
        cpu_period_us=parse_number(read("cpu", "cpu.cfs_period_us")),
        cpu_quota_us=quota if quota is not None and quota > 0 else None,
        cpu_shares=parse_number(read("cpu", "cpu.shares")),
        memory_reservation_bytes=parse_limit_file(read("memory", "memory.soft_limit_in_bytes")),
        memory_swap_limit_bytes=parse_limit_file(read("memory", "memory.memsw.limit_in_bytes")),
        tasks=parse_number(read("pids", "pids.current")),
        tasks_limit=parse_limit_file(read("pids", "pids.max")),
        devices=parse_blkio(
            _first(
                read, "blkio", "blkio.throttle.io_service_bytes_recursive", "blkio.throttle.io_service_bytes"
            ),
            _first(read, "blkio", "blkio.throttle.io_serviced_recursive", "blkio.throttle.io_serviced"),
        ),
        huge_pages=_huge_pages(read, "hugetlb", "usage_in_bytes", page_sizes)
        or _huge_pages(read, "", "current", page_sizes),
        pids=pids,
    )


def detail_v2(
    read: Read, usage: CgroupUsage, pids: tuple[int, ...], page_sizes: Sequence[str]
) -> CgroupDetail:
    """Detail from the v2 hierarchy. `read` is asked again for files that `usage` was made from."""
    stat = parse_keyed(read("", "memory.stat") or b"")
    cpu = parse_keyed(read("", "cpu.stat") or b"")
    events = read("", "memory.events")
    quota, period = _cpu_max(read("", "cpu.max"))
    weight = parse_number(read("", "cpu.weight"))
    kernel = stat.get(b"kernel")
    if kernel is None and stat:
        kernel = sum(stat.get(part, 0) for part in _KERNEL_PARTS)
    return CgroupDetail(
        usage=usage,
        user_ns=_thousandfold(cpu.get(b"user_usec")),
        system_ns=_thousandfold(cpu.get(b"system_usec")),
        periods=cpu.get(b"nr_periods"),
        throttled_periods=cpu.get(b"nr_throttled"),
        throttled_ns=_thousandfold(cpu.get(b"throttled_usec")),
        cache_bytes=stat.get(b"file"),
        mapped_file_bytes=stat.get(b"file_mapped"),
        kernel_bytes=kernel,
        max_usage_bytes=parse_number(read("", "memory.peak")),
        limit_hits=None if events is None else parse_keyed(events).get(b"max"),
        oom_kills=_oom_kills(events),
        faults=usage.page_faults,
        major_faults=usage.major_page_faults,
        cpu_period_us=period,
        cpu_quota_us=quota,
        cpu_shares=None if weight is None else shares_of_weight(weight),
        memory_reservation_bytes=parse_number(read("", "memory.low")),
        memory_swap_limit_bytes=usage.swap_limit_bytes,
        tasks=parse_number(read("", "pids.current")),
        tasks_limit=parse_limit_file(read("", "pids.max")),
        devices=parse_io_stat(read("", "io.stat") or b""),
        huge_pages=_huge_pages(read, "", "current", page_sizes),
        pids=pids,
    )


def shares_of_weight(weight: int) -> int:
    """The v1 shares (2 to 262144) that a v2 weight (1 to 10000) stands for, linearly."""
    return 2 + (weight - 1) * 262142 // 9999


def page_size_name(size_kib: int) -> str:
    """A huge page size as cgroup file names have it: 64KB, 2MB, 1GB."""
    for unit in ("KB", "MB"):
        if size_kib < 1024:
            return f"{size_kib}{unit}"
        size_kib //= 1024
    return f"{size_kib}GB"


def sorted_pids(data: bytes) -> tuple[int, ...]:
    """Parse cgroup.procs."""
    return tuple(sorted(parse_pids(data.decode("latin-1"))))


def _cpu_max(data: bytes | None) -> tuple[int | None, int | None]:
    words = (data or b"").split()
    if len(words) != 2:
        return None, None
    return parse_number(words[0]), parse_number(words[1])


def _oom_kills(data: bytes | None) -> int | None:
    return None if data is None else oom_kills(data.decode("latin-1"))


def _huge_pages(read: Read, controller: str, name: str, page_sizes: Sequence[str]) -> tuple[HugePages, ...]:
    found = []
    for size in page_sizes:
        usage = parse_number(read(controller, f"hugetlb.{size}.{name}"))
        if usage is not None:
            peak = parse_number(read(controller, f"hugetlb.{size}.max_usage_in_bytes"))
            found.append(HugePages(size, usage, peak))
    return tuple(found)


def _first(read: Read, controller: str, *names: str) -> bytes:
    for name in names:
        data = read(controller, name)
        if data is not None:
            return data
    return b""


def _thousandfold(value: int | None) -> int | None:
    return None if value is None else value * 1000
