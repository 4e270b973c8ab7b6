"""What NRI plugins want of containers beside the one that they are asked about: updates and evictions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import structlog
import trio

from noded.errors import NodedError
from noded.model.pod import Resources

if TYPE_CHECKING:
    from noded.nri.merge import Updates
    from noded.proto.nri.pkg.api.v1alpha1 import ContainerEviction, ContainerUpdate, LinuxResources

log = structlog.get_logger(__name__)

_UPDATE_SECONDS = 10.0  # for one container's update
_EVICTED_GRACE_SECONDS = 10.0

Update = Callable[[str, dict[str, Any], Resources], Awaitable[None]]
Stop = Callable[[str, float], Awaitable[None]]


class Wishes:
    """Grants them.

    Args:
        swap_accounting: whether this node counts swap.
    """

    def __init__(self, *, swap_accounting: bool) -> None:
        self._swap_accounting = swap_accounting
        self._update: Update | None = None
        self._stop: Stop | None = None
        self._evictions: trio.Nursery | None = None

    def use(self, update: Update, stop: Stop) -> None:
        """Give what changes and stops a container by its id."""
        self._update, self._stop = update, stop

    def evict_in(self, evictions: trio.Nursery) -> None:
        """Give the nursery of evictions; a grace period is longer than a request should wait."""
        self._evictions = evictions

    async def follow(self, cause: str, updates: Updates) -> None:
        """Grant what came of an event."""
        await self.grant(cause, list(updates.by_id.values()), updates.evictions)

    async def grant(
        self, cause: str, updates: Sequence[ContainerUpdate], evictions: Sequence[ContainerEviction]
    ) -> list[ContainerUpdate]:
        """Update and evict containers; return the updates that failed and must not."""
        failed = []
        for update in updates:
            resources = update.linux.resources if update.linux is not None else None
            if resources is None:
                continue
            try:
                with trio.fail_after(_UPDATE_SECONDS):
                    await self._apply_limits(update.container_id, resources)
            except (NodedError, trio.TooSlowError) as error:
                log.warning(
                    "an update by an NRI plugin failed", id=update.container_id, cause=cause, error=str(error)
                )
                if not update.ignore_failure:
                    failed.append(update)
        for eviction in evictions:
            assert self._evictions is not None
            self._evictions.start_soon(self._evict, cause, eviction)
        return failed

    async def _apply_limits(self, container_id: str, limits: LinuxResources) -> None:
        from noded.nri.limits import to_cri, to_oci

        assert self._update is not None
        changes = to_oci(limits, swap_accounting=self._swap_accounting)
        await self._update(container_id, changes, to_cri(limits))

    async def _evict(self, cause: str, eviction: ContainerEviction) -> None:
        assert self._stop is not None
        log.warning(
            "an NRI plugin evicts a container", id=eviction.container_id, cause=cause, reason=eviction.reason
        )
        try:
            await self._stop(eviction.container_id, _EVICTED_GRACE_SECONDS)
        except Exception as error:
            log.warning("not evicted", id=eviction.container_id, error=str(error))
