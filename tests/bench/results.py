"""Samples by row and subject, and what is computed from them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Series:
    """Samples of one measure for one subject; `cpu_seconds` has one entry per sample, or none."""

    values: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def p99(self) -> float:
        """By nearest rank: the maximum of fewer than 100 samples."""
        ordered = sorted(self.values)
        return ordered[math.ceil(0.99 * len(ordered)) - 1]

    @property
    def cpu(self) -> float | None:
        """Median CPU seconds of one sample, None when it was not measured."""
        known = [value for value in self.cpu_seconds if not math.isnan(value)]
        return statistics.median(known) if known else None


class Results:
    """Rows in the order of their first sample. A row is (measure, case) and has a unit."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Series]] = {}
        self.units: dict[str, str] = {}

    def add(
        self, row: str, subject: str, value: float, *, cpu_seconds: float = math.nan, unit: str = "ms"
    ) -> None:
        """One sample; times are in seconds and are shown in `unit` (ms or s)."""
        self.units[row] = unit
        series = self.rows.setdefault(row, {}).setdefault(subject, Series())
        series.values.append(value * 1e3 if unit == "ms" else value)
        series.cpu_seconds.append(cpu_seconds)

    def subjects(self) -> list[str]:
        return list(dict.fromkeys(subject for row in self.rows.values() for subject in row))

    def ratio(self, row: str, subject: str, against: str, *, cpu: bool = False) -> float | None:
        """Median of one subject over that of another, None when either is missing or zero."""
        cells = self.rows.get(row, {})
        if subject not in cells or against not in cells:
            return None
        mine, theirs = cells[subject], cells[against]
        upper, lower = (mine.cpu, theirs.cpu) if cpu else (mine.median, theirs.median)
        return upper / lower if upper is not None and lower else None

    def as_json(self) -> dict[str, Any]:
        return {
            row: {
                "unit": self.units[row],
                "subjects": {
                    subject: {
                        "median": series.median,
                        "p99": series.p99,
                        "samples": len(series.values),
                        "cpu_seconds": series.cpu,
                    }
                    for subject, series in cells.items()
                },
            }
            for row, cells in self.rows.items()
        }


def rotated(subjects: Iterable[Any], turn: int) -> list[Any]:
    """The subjects in an order that gives each of them each place in turn."""
    items = list(subjects)
    turn %= len(items) or 1
    return items[turn:] + items[:turn]
