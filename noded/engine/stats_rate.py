"""CPU use as a rate, from the last sample of the same container."""

from __future__ import annotations

_WINDOW_NS = 1_000_000_000  # samples closer together do not replace each other as the base
_SHORTEST_NS = 10_000_000  # the kernel's own counters lag by a tick


class CpuRate:
    """Remembers two samples of one counter; the rate spans at least a second where calls allow it."""

    __slots__ = ("_base", "_last", "_rate")

    def __init__(self) -> None:
        self._base: tuple[int, int] | None = None
        self._last: tuple[int, int] | None = None
        self._rate: int | None = None

    def update(self, monotonic_ns: int, cpu_ns: int) -> int | None:
        """Take a sample; return nanoseconds of CPU time per second since an earlier one.

        None for the first sample and when the counter went backwards.
        """
        sample = monotonic_ns, cpu_ns
        last = self._last
        if last is None or cpu_ns < last[1] or monotonic_ns < last[0]:
            self._base, self._last, self._rate = None, sample, None
            return None
        if monotonic_ns - last[0] >= _WINDOW_NS:
            self._base, self._last = last, sample
        since = self._base or last
        elapsed_ns = monotonic_ns - since[0]
        if elapsed_ns >= _SHORTEST_NS:
            self._rate = (cpu_ns - since[1]) * 1_000_000_000 // elapsed_ns
        return self._rate
