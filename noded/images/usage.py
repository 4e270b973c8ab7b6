"""How much disk the writable layers of containers take."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import trio

from noded.images.filesystem import tree_usage

_MAX_AGE_NS = 30 * 1_000_000_000  # walking every writable layer is dear, and kubelet asks each 10 s


@dataclass(frozen=True, slots=True)
class Measurement:
    used_bytes: int
    used_inodes: int
    measured_at_ns: int


class WritableLayers:
    """Measures a directory of container directories, at most every 30 s."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._last = Measurement(0, 0, 0)
        self._lock = trio.Lock()

    async def measure(self) -> Measurement:
        """What all containers take together.

        Cancellation: waits for a walk in progress.
        Locks: one walk at a time; others wait for its result.
        """
        async with self._lock:
            now = time.time_ns()
            if not 0 <= now - self._last.measured_at_ns < _MAX_AGE_NS:
                used_bytes, used_inodes = await trio.to_thread.run_sync(tree_usage, self._directory)
                self._last = Measurement(used_bytes, used_inodes, now)
            return self._last
