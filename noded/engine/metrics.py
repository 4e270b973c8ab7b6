"""Counters of the daemon about itself, and their text for Prometheus.

Written by hand: the format is a page long (github.com/prometheus/docs, exposition_formats.md, version
0.0.4), while the usual library brings an HTTP server, threads and locks that nothing here needs.
Everything runs in the daemon's one thread.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Seconds, for calls that take from under a millisecond (lists) to minutes (pulls).
LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

M = TypeVar("M", "Counter", "Histogram", "Read")
Labels = tuple[str, ...]
Sample = tuple[Labels, float]


@dataclass(frozen=True, slots=True)
class Family:
    """What all samples of one name have in common. `type`: counter, gauge or histogram."""

    name: str
    help: str
    type: str
    labels: Labels = ()


class Counter:
    """Only grows. `labels` are values in the order of the family's names."""

    def __init__(self, family: Family) -> None:
        self.family = family
        self._values: dict[Labels, float] = {} if family.labels else {(): 0.0}

    def add(self, *labels: str, amount: float = 1.0) -> None:
        """Count an event, or `amount` of them."""
        self._values[labels] = self._values.get(labels, 0.0) + amount

    def lines(self) -> Iterator[str]:
        for labels, value in self._values.items():
            yield line(self.family.name, self.family.labels, labels, value)


class Histogram:
    """Counts observations up to each bound."""

    def __init__(self, family: Family, bounds: Sequence[float] = LATENCY_BUCKETS) -> None:
        self.family = family
        self._bounds = tuple(bounds)
        self._counts: dict[Labels, list[int]] = {}
        self._sums: dict[Labels, float] = {}

    def observe(self, value: float, *labels: str) -> None:
        """Count a value, in the unit of the bounds."""
        counts = self._counts.setdefault(labels, [0] * (len(self._bounds) + 1))
        counts[bisect_left(self._bounds, value)] += 1
        self._sums[labels] = self._sums.get(labels, 0.0) + value

    def lines(self) -> Iterator[str]:
        name, keys = self.family.name, (*self.family.labels, "le")
        for labels, counts in self._counts.items():
            below = 0
            for bound, count in zip((*self._bounds, math.inf), counts, strict=True):
                below += count
                yield line(f"{name}_bucket", keys, (*labels, number(bound)), below)
            yield line(f"{name}_sum", self.family.labels, labels, self._sums[labels])
            yield line(f"{name}_count", self.family.labels, labels, below)


class Read:
    """Values that are read when somebody asks."""

    def __init__(self, family: Family, read: Callable[[], Iterable[Sample]]) -> None:
        self.family = family
        self._read = read

    def lines(self) -> Iterator[str]:
        for labels, value in self._read():
            yield line(self.family.name, self.family.labels, labels, value)


class Metrics:
    """All families of one endpoint, in the order in which they were made."""

    def __init__(self) -> None:
        self._families: dict[str, Counter | Histogram | Read] = {}

    def counter(self, name: str, help: str, *labels: str) -> Counter:
        """Add a family that only grows; `labels` are its names of labels."""
        return self._add(Counter(Family(name, help, "counter", labels)))

    def histogram(
        self,
        name: str,
        help: str,
        *labels: str,
        bounds: Sequence[float] = LATENCY_BUCKETS,
    ) -> Histogram:
        """Add a family of observations; `bounds` in the unit of its name."""
        return self._add(Histogram(Family(name, help, "histogram", labels), bounds))

    def gauge(
        self,
        name: str,
        help: str,
        *labels: str,
        read: Callable[[], Iterable[Sample]],
    ) -> Read:
        """Add a family whose values are read when somebody asks."""
        return self._add(Read(Family(name, help, "gauge", labels), read))

    def total(
        self,
        name: str,
        help: str,
        *labels: str,
        read: Callable[[], Iterable[Sample]],
    ) -> Read:
        """A counter that is kept elsewhere."""
        return self._add(Read(Family(name, help, "counter", labels), read))

    def text(self) -> str:
        """Everything, in the text format."""
        lines = []
        for one in self._families.values():
            family = one.family
            text = family.help.replace("\\", "\\\\").replace("\n", "\\n")
            lines += [f"# HELP {family.name} {text}", f"# TYPE {family.name} {family.type}", *one.lines()]
        return "\n".join(lines) + "\n"

    def _add(self, family: M) -> M:
        if family.family.name in self._families:
            raise ValueError(f"two metrics are named {family.family.name}")
        self._families[family.family.name] = family
        return family


def line(name: str, keys: Sequence[str], values: Sequence[str], value: float) -> str:
    """One sample as text."""
    if not keys:
        return f"{name} {number(value)}"
    pairs = ",".join(f'{key}="{_escaped(text)}"' for key, text in zip(keys, values, strict=True))
    return f"{name}{{{pairs}}} {number(value)}"


def number(value: float) -> str:
    """A number as the format has it."""
    if value == math.inf:
        return "+Inf"
    return str(int(value)) if value == int(value) else repr(float(value))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
