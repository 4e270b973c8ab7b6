"""Time and CPU of one step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Lap:
    """Filled at the end of `timed`."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0


@contextmanager
def timed(cpu: Callable[[], float]) -> Iterator[Lap]:
    """Measure what is done within it."""
    lap = Lap()
    used, started = cpu(), time.perf_counter()
    yield lap
    lap.seconds = time.perf_counter() - started
    lap.cpu_seconds = cpu() - used
