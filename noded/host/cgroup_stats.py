"""Reading cgroup accounting files: pure parsers for both cgroup versions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

# memory.limit_in_bytes without a limit is LONG_MAX rounded down to a page; anything this large is "none".
_V1_UNLIMITED_BYTES = 1 << 62


def parse_flat_keyed(text: str) -> dict[str, int]:
    """Parse `KEY VALUE` lines (memory.stat, memory.events, cpu.stat...); odd lines are skipped."""
    values = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if value.strip().isascii() and value.strip().isdigit():
            values[key] = int(value)
    return values


def parse_pids(text: str) -> set[int]:
    """Parse cgroup.procs. 0 stands for a process of another pid namespace and is left out."""
    return {int(word) for word in text.split() if word.isdigit()} - {0}


def parse_limit(text: str) -> int | None:
    """Parse a limit in bytes or tasks of either version; None = unlimited."""
    word = text.strip()
    if word in ("max", "-1", ""):
        return None
    value = int(word)
    return None if value >= _V1_UNLIMITED_BYTES else value


def cpu_usage_ns_v1(cpuacct_usage: str) -> int:
    """CPU time of all tasks ever in the cgroup, from cpuacct.usage."""
    return int(cpuacct_usage)


def cpu_usage_ns_v2(cpu_stat: str) -> int:
    """CPU time of all tasks ever in the cgroup, from cpu.stat."""
    return parse_flat_keyed(cpu_stat).get("usage_usec", 0) * 1000


def memory_working_set_bytes(usage_bytes: int, memory_stat: str) -> int:
    """Memory that reclaim cannot easily free, as kubelet computes it: usage less inactive page cache.

    v1 counts children in `total_inactive_file`, v2 in `inactive_file`.
    """
    stat = parse_flat_keyed(memory_stat)
    inactive = stat.get("total_inactive_file", stat.get("inactive_file", 0))
    return max(0, usage_bytes - inactive)


def oom_kills(text: str) -> int:
    """Processes that the kernel killed for want of memory, from memory.oom_control or memory.events."""
    return parse_flat_keyed(text).get("oom_kill", 0)


@dataclass(frozen=True, slots=True)
class Stall:
    """One line of a pressure file: shares of the last 10, 60 and 300 s in percent, and the total."""

    avg10: float
    avg60: float
    avg300: float
    total_us: int


@dataclass(frozen=True, slots=True)
class Pressure:
    """How long tasks waited for a resource: some of them, or all at once (`full`)."""

    some: Stall
    full: Stall | None = None


@dataclass(frozen=True, slots=True)
class CgroupUsage:
    """What a cgroup and all below it use; None = the kernel does not say, limits: None = unlimited.

    Args:
        at_ns, monotonic_ns: when it was read, by the wall clock and by the monotonic one.
        rss_bytes: anonymous memory, without page cache.
    """

    at_ns: int
    monotonic_ns: int
    cpu_ns: int | None = None
    memory_bytes: int | None = None
    working_set_bytes: int | None = None
    rss_bytes: int | None = None
    memory_limit_bytes: int | None = None
    page_faults: int | None = None
    major_page_faults: int | None = None
    swap_bytes: int | None = None
    swap_limit_bytes: int | None = None
    cpu_pressure: Pressure | None = None
    memory_pressure: Pressure | None = None
    io_pressure: Pressure | None = None


@dataclass(frozen=True, slots=True)
class DeviceIo:
    """What a cgroup moved from and to one block device."""

    major: int
    minor: int
    read_bytes: int = 0
    write_bytes: int = 0
    reads: int = 0
    writes: int = 0


# File of a controller's directory -> its content, None when there is none: (controller, name).
# Controller "" is the v2 hierarchy: all of it, or what a hybrid has beside v1.
Read = Callable[[str, str], bytes | None]


def parse_keyed(data: bytes) -> dict[bytes, int]:
    """Parse `KEY VALUE` lines as `parse_flat_keyed` does, at a third of its price for good input."""
    words = data.split()
    try:
        return dict(zip(words[::2], map(int, words[1::2]), strict=True))
    except ValueError:
        return {key.encode(): value for key, value in parse_flat_keyed(data.decode("latin-1")).items()}


def parse_number(data: bytes | None) -> int | None:
    """Parse a file with one number; None when it is missing or says something else."""
    try:
        return None if data is None else int(data)
    except ValueError:
        return None


def parse_limit_file(data: bytes | None) -> int | None:
    """`parse_limit` for a file that may be missing or odd: None = unlimited."""
    try:
        return None if data is None else parse_limit(data.decode("latin-1"))
    except ValueError:
        return None


def parse_pressure(data: bytes | None) -> Pressure | None:
    """Parse a pressure file (accounting/psi.rst); None when PSI is off or the file is odd."""
    lines = {}
    for line in (data or b"").splitlines():
        try:
            kind, *pairs = line.split()
            values = dict(pair.split(b"=", 1) for pair in pairs)
            lines[kind] = Stall(
                float(values[b"avg10"]),
                float(values[b"avg60"]),
                float(values[b"avg300"]),
                int(values[b"total"]),
            )
        except (KeyError, ValueError):
            continue
    some = lines.get(b"some")
    return None if some is None else Pressure(some, lines.get(b"full"))


def usage_v1(read: Read, at_ns: int, monotonic_ns: int) -> CgroupUsage | None:
    """Usage from v1 controllers; pressure from the v2 side of a hybrid. None when the cgroup is gone."""
    cpu_ns = parse_number(read("cpuacct", "cpuacct.usage"))
    memory = parse_number(read("memory", "memory.usage_in_bytes"))
    if cpu_ns is None and memory is None:
        return None
    stat = parse_keyed(read("memory", "memory.stat") or b"")
    whole = stat.get(b"hierarchical_memory_limit", _V1_UNLIMITED_BYTES)
    with_swap = stat.get(b"hierarchical_memsw_limit", _V1_UNLIMITED_BYTES)
    return CgroupUsage(
        at_ns,
        monotonic_ns,
        cpu_ns,
        memory,
        None if memory is None else max(0, memory - stat.get(b"total_inactive_file", 0)),
        stat.get(b"total_rss"),
        parse_limit_file(read("memory", "memory.limit_in_bytes")),
        stat.get(b"total_pgfault"),
        stat.get(b"total_pgmajfault"),
        stat.get(b"total_swap"),
        None if with_swap >= _V1_UNLIMITED_BYTES else max(0, with_swap - whole),
        parse_pressure(read("", "cpu.pressure")),
        parse_pressure(read("", "memory.pressure")),
        parse_pressure(read("", "io.pressure")),
    )


def usage_v2(read: Read, at_ns: int, monotonic_ns: int) -> CgroupUsage | None:
    """Usage from the v2 hierarchy. None when the cgroup is gone."""
    cpu = read("", "cpu.stat")
    if cpu is None:
        return None
    memory = parse_number(read("", "memory.current"))
    stat = parse_keyed(read("", "memory.stat") or b"")
    usec = parse_keyed(cpu).get(b"usage_usec")
    return CgroupUsage(
        at_ns,
        monotonic_ns,
        None if usec is None else usec * 1000,
        memory,
        None if memory is None else max(0, memory - stat.get(b"inactive_file", 0)),
        stat.get(b"anon"),
        parse_limit_file(read("", "memory.max")),
        stat.get(b"pgfault"),
        stat.get(b"pgmajfault"),
        parse_number(read("", "memory.swap.current")),
        parse_limit_file(read("", "memory.swap.max")),
        parse_pressure(read("", "cpu.pressure")),
        parse_pressure(read("", "memory.pressure")),
        parse_pressure(read("", "io.pressure")),
    )


def total(usages: Iterable[CgroupUsage], at_ns: int, monotonic_ns: int) -> CgroupUsage:
    """The sum of several cgroups that have no common parent of their own; no limits, no pressure."""
    known = tuple(usages)

    def add(values: Iterable[int | None]) -> int | None:
        there = [value for value in values if value is not None]
        return sum(there) if there else None

    return CgroupUsage(
        at_ns,
        monotonic_ns,
        cpu_ns=add(one.cpu_ns for one in known),
        memory_bytes=add(one.memory_bytes for one in known),
        working_set_bytes=add(one.working_set_bytes for one in known),
        rss_bytes=add(one.rss_bytes for one in known),
        page_faults=add(one.page_faults for one in known),
        major_page_faults=add(one.major_page_faults for one in known),
        swap_bytes=add(one.swap_bytes for one in known),
    )


def parse_blkio(size: bytes, count: bytes) -> tuple[DeviceIo, ...]:
    """Parse blkio.throttle.io_service_bytes and io_serviced: `MAJOR:MINOR OPERATION VALUE` lines."""
    found: dict[bytes, list[int]] = {}
    columns = {(0, b"Read"): 0, (0, b"Write"): 1, (1, b"Read"): 2, (1, b"Write"): 3}
    for which, data in enumerate((size, count)):
        for line in data.splitlines():
            words = line.split()
            if len(words) != 3 or not words[2].isdigit():
                continue  # the "Total VALUE" at the end
            column = columns.get((which, words[1]))
            if column is not None:
                found.setdefault(words[0], [0, 0, 0, 0])[column] += int(words[2])
    return _devices(found)


def parse_io_stat(data: bytes) -> tuple[DeviceIo, ...]:
    """Parse io.stat of v2: `MAJOR:MINOR rbytes=N wbytes=N rios=N wios=N ...` lines."""
    found: dict[bytes, list[int]] = {}
    columns = {b"rbytes": 0, b"wbytes": 1, b"rios": 2, b"wios": 3}
    for line in data.splitlines():
        device, *pairs = line.split() or (b"",)
        for pair in pairs:
            key, _, value = pair.partition(b"=")
            if key in columns and value.isdigit():
                found.setdefault(device, [0, 0, 0, 0])[columns[key]] = int(value)
    return _devices(found)


def _devices(found: Mapping[bytes, list[int]]) -> tuple[DeviceIo, ...]:
    devices = []
    for device, counters in found.items():
        major, _, minor = device.partition(b":")
        if major.isdigit() and minor.isdigit():
            devices.append(DeviceIo(int(major), int(minor), *counters))
    return tuple(devices)
