"""Reading cgroup accounting files: pure parsers for both cgroup versions."""

from __future__ import annotations

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
