"""How far running pulls are. Plain counters in memory, written by worker threads, read by anybody."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Phase(StrEnum):
    """What a layer of a running pull is at."""

    WAITING = "waiting"
    DOWNLOADING = "downloading"
    STREAMING = "streaming"  # downloading and unpacking at once
    UNPACKING = "unpacking"
    DONE = "done"
    PRESENT = "present"  # was here before the pull


@dataclass(slots=True)
class LayerProgress:
    """One layer, shared by all pulls that want it. `done_bytes` counts compressed bytes received."""

    digest: str
    total_bytes: int
    done_bytes: int = 0
    phase: Phase = Phase.WAITING


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
