"""Places for the layers that are extracted at the same time."""

from __future__ import annotations

import os

import trio

from noded.images.unpack.limits import worker_count
from noded.model.image import LayerRef


class Workers:
    """As many places as `worker_count`, of which layers in zstd take no more than there are CPUs.

    Who decodes gzip waits for the disk now and then, so that more of them than CPUs end sooner and cost
    nothing. zstd is quick, and decoded in windows of megabytes: more of it at once is no sooner on the
    disk and costs 7 % more CPU time, for the cache that they share (docs/scale.md).

    Args:
        configured: places for layers of every kind; 0 = as the machine has it.
    """

    def __init__(self, configured: int = 0) -> None:
        self._all = trio.Semaphore(worker_count(configured))
        self._zstd = trio.Semaphore(configured or len(os.sched_getaffinity(0)))

    def take_now(self, layer: LayerRef) -> bool:
        """Take a place if there is one."""
        taken: list[trio.Semaphore] = []
        for semaphore in self._of(layer):
            try:
                semaphore.acquire_nowait()
            except trio.WouldBlock:
                _release(taken)
                return False
            taken.append(semaphore)
        return True

    async def take(self, layer: LayerRef) -> None:
        """Wait for a place. Cancellation: nothing is taken then."""
        taken: list[trio.Semaphore] = []
        try:
            for semaphore in self._of(layer):
                await semaphore.acquire()
                taken.append(semaphore)
        except BaseException:
            _release(taken)
            raise

    def give_back(self, layer: LayerRef) -> None:
        """Free the place of a layer."""
        _release(self._of(layer))

    def _of(self, layer: LayerRef) -> list[trio.Semaphore]:
        return [self._zstd, self._all] if "zstd" in layer.media_type else [self._all]


def _release(semaphores: list[trio.Semaphore]) -> None:
    for semaphore in semaphores:
        semaphore.release()
