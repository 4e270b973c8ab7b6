"""How far running pulls are. Plain counters in memory, written by worker threads, read by anybody."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from noded.tracing.spans import past_span

_WAIT_NS = 1_000_000


class Phase(StrEnum):
    """What a layer of a running pull is at."""

    WAITING = "waiting"
    DOWNLOADING = "downloading"
    STREAMING = "streaming"  # downloading and unpacking at once
    UNPACKING = "unpacking"
    DONE = "done"
    PRESENT = "present"  # was here before the pull


class Step(NamedTuple):
    """Something that was done for a layer, from when to when by time.monotonic_ns()."""

    name: str
    start_ns: int
    end_ns: int


class ByteCount:
    """A number that several threads add to."""

    def __init__(self) -> None:
        self.total = 0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        with self._lock:
            self.total += count


@dataclass(slots=True)
class LayerProgress:
    """One layer, shared by all pulls that want it. `done_bytes` counts compressed bytes received."""

    digest: str
    total_bytes: int
    done_bytes: int = 0
    phase: Phase = Phase.WAITING
    steps: list[Step] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class PullProgress:
    """One running pull. `layers` is empty until its manifest is known."""

    reference: str
    started_at_ns: int
    layers: tuple[LayerProgress, ...] = ()

    @property
    def done_bytes(self) -> int:
        return sum(layer.done_bytes for layer in self.layers)

    @property
    def total_bytes(self) -> int:
        """Bytes to download; layers that were present count nothing."""
        return sum(layer.total_bytes for layer in self.layers if layer.phase is not Phase.PRESENT)


def snapshot(reference: str, started_at_ns: int, layers: Iterable[LayerProgress]) -> PullProgress:
    """Copies, so that a reader sees numbers that stand still."""
    copies = (LayerProgress(one.digest, one.total_bytes, one.done_bytes, one.phase) for one in layers)
    return PullProgress(reference, started_at_ns, tuple(copies))


@contextmanager
def timed(progress: LayerProgress, name: str) -> Iterator[None]:
    """Note in `progress` how long something took, also if it failed."""
    started_ns = time.monotonic_ns()
    try:
        yield
    finally:
        progress.steps.append(Step(name, started_ns, time.monotonic_ns()))


def note_layer(progress: LayerProgress, asked_ns: int) -> None:
    """Note a layer that is done as a step of the call in progress, with what was done for it.

    Args:
        asked_ns: when this call asked for it; others may have begun with it before.
    """
    now_ns = time.monotonic_ns()
    name = f"layer {progress.digest.removeprefix('sha256:')[:12]}"
    layer = past_span(name, asked_ns, now_ns, bytes=str(progress.total_bytes))
    if not layer:
        return
    steps = [step for step in progress.steps if step.end_ns > asked_ns]
    first_ns = min((step.start_ns for step in steps), default=now_ns)
    if first_ns - asked_ns >= _WAIT_NS:
        past_span("wait", asked_ns, first_ns, layer)
    for step in steps:
        past_span(step.name, max(step.start_ns, asked_ns), step.end_ns, layer)
