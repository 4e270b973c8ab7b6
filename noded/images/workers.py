"""Places for the layers that are extracted at the same time."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

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
        """Take a place, to be given back, if there is one."""
        if any(semaphore.value == 0 for semaphore in self._of(layer)):
            return False
        for semaphore in self._of(layer):
            semaphore.acquire_nowait()
        return True

    @asynccontextmanager
    async def place(self, layer: LayerRef) -> AsyncIterator[None]:
        """Wait for a place and keep it. Cancellation: nothing is taken then."""
        async with AsyncExitStack() as taken:
            for semaphore in self._of(layer):
                await taken.enter_async_context(semaphore)
            yield

    def give_back(self, layer: LayerRef) -> None:
        """Free a place that `take_now` took."""
        for semaphore in self._of(layer):
            semaphore.release()

    def _of(self, layer: LayerRef) -> list[trio.Semaphore]:
        return [self._zstd, self._all] if "zstd" in layer.media_type else [self._all]
