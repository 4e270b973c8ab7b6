"""How much disk each container's writable layer takes, remembered.

The kernel does not count what a directory holds, so it must be walked. A walk is repeated after half
a minute at the earliest, and never takes more than two percent of the time. Lists do not wait for
walks, but for those of containers that were never measured, and not long.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import structlog
import trio

from noded.images.filesystem_info import mount_points
from noded.images.usage import Measurement, container_usage
from noded.model.paths import Layout

log = structlog.get_logger(__name__)

_MAX_AGE_SECONDS = 30.0
_COST_SHARE = 50.0  # a walk of one second is repeated after this many seconds
_FIRST_SECONDS = 0.5  # how long a list waits for containers that were never measured
_SLACK = 64


@dataclass(frozen=True, slots=True)
class _Known:
    measurement: Measurement
    due_at: float  # monotonic seconds


class LayerUsage:
    """Measures writable layers, one at a time.

    Args:
        nursery: long-lived; walks run there.
        measure: (directory) -> (bytes, inodes); blocks.
    """

    def __init__(
        self,
        layout: Layout,
        nursery: trio.Nursery,
        measure: Callable[[Path], tuple[int, int]] = container_usage,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._layout = layout
        self._nursery = nursery
        self._measure = measure
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._waiting: dict[str, trio.Event] = {}
        self._walking = False
        self._one = trio.CapacityLimiter(1)

    def known(self, container_id: str) -> Measurement | None:
        """The last measurement; its time tells how old it is."""
        known = self._known.get(container_id)
        return None if known is None else known.measurement

    def mount_point(self) -> str:
        """Where the writable layers are, as ImageFsInfo names it. Blocks for a moment."""
        return mount_points(self._layout)[1]

    async def refresh(self, live: Collection[str]) -> None:
        """Have what is too old measured again; wait a little for what was never measured.

        Args:
            live: ids of the containers that are looked at.
        """
        now = self._clock()
        first = []
        for container_id in live:
            known = self._known.get(container_id)
            if known is None:
                first.append(self._waiting.setdefault(container_id, trio.Event()))
            elif known.due_at <= now:
                self._waiting.setdefault(container_id, trio.Event())
        if self._waiting and not self._walking:
            self._walking = True
            self._nursery.start_soon(self._walk)
        with trio.move_on_after(_FIRST_SECONDS):
            for measured in first:
                await measured.wait()

    async def _walk(self) -> None:
        try:
            while self._waiting:
                container_id = next(
                    (one for one in self._waiting if one not in self._known), next(iter(self._waiting))
                )
                await self._walk_one(container_id)
                self._waiting.pop(container_id).set()
        finally:
            self._walking = False

    async def _walk_one(self, container_id: str) -> None:
        data = self._layout.container_data(container_id)
        at_ns, started = time.time_ns(), self._clock()
        try:
            # Only looks: at the daemon's end the thread may be left behind.
            used_bytes, used_inodes = await trio.to_thread.run_sync(
                self._measure, data, limiter=self._one, abandon_on_cancel=True
            )
        except Exception as error:
            log.warning("writable layer not measured", id=container_id, error=str(error))
            before = self.known(container_id) or Measurement(0, 0, at_ns)
            self._known[container_id] = _Known(before, self._clock() + _MAX_AGE_SECONDS)
            return
        now = self._clock()
        due_at = now + max(_MAX_AGE_SECONDS, (now - started) * _COST_SHARE)
        self._known[container_id] = _Known(Measurement(used_bytes, used_inodes, at_ns), due_at)

    def keep(self, alive: Collection[str]) -> None:
        """Forget containers that are gone, if there are many."""
        if len(self._known) > len(alive) + _SLACK:
            self._known = {one: known for one, known in self._known.items() if one in alive}
