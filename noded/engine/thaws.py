"""Containers that a checkpoint froze go on, whatever happens: retried until it succeeds.

bundle/checkpointing   the container may be frozen
"""

from __future__ import annotations

from pathlib import Path

import structlog
import trio

from noded.engine.backoff import delays
from noded.engine.container import Container
from noded.engine.container_ladder import ContainerLadder
from noded.errors import DeadlineExceeded

log = structlog.get_logger(__name__)

_FIRST_DELAY_SECONDS = 1.0
_LONGEST_DELAY_SECONDS = 60.0
_RESUME_SECONDS = 60.0


class Thaws:
    """Lets containers go on, one task for each that cannot yet."""

    def __init__(self, ladder: ContainerLadder, nursery: trio.Nursery) -> None:
        self._ladder = ladder
        self._nursery = nursery

    async def thaw(self, container: Container) -> None:
        """Let a container go on. The caller holds its lock, or nothing else can freeze it.

        Raises: as the runtime's resume; the container is tried again, and says so in its view, until it
            goes on or has ended.
        """
        try:
            await self._try(container)
        except Exception as error:
            log.error("container stays frozen after a checkpoint", id=container.id, error=str(error))
            if not container.frozen:
                container.set_frozen(str(error))
                self._nursery.start_soon(self._retry, container)
            raise

    async def recover(self, container: Container) -> None:
        """After a restart: let a container go on that an earlier daemon froze. Raises: as `thaw`."""
        if _mark(container).exists():
            log.warning("container was being checkpointed when the daemon ended", id=container.id)
            await self.thaw(container)

    async def _retry(self, container: Container) -> None:
        for delay in delays(_FIRST_DELAY_SECONDS, _LONGEST_DELAY_SECONDS):
            with trio.move_on_after(delay):
                await container.exited.wait()
            if container.exited.is_set():
                container.set_frozen("")
            if not container.frozen:
                return
            try:
                async with container.lock:
                    await self._try(container)
                return
            except Exception as error:
                container.set_frozen(str(error))
                log.warning("container still frozen", id=container.id, error=str(error))

    async def _try(self, container: Container) -> None:
        try:
            with trio.fail_after(_RESUME_SECONDS):
                await (await self._ladder.sandbox_runtime(container)).resume(container.ref)
        except trio.TooSlowError:
            raise DeadlineExceeded(
                f"the runtime did not resume container {container.id[:12]} within {_RESUME_SECONDS:g} s"
            ) from None
        _mark(container).unlink(missing_ok=True)
        if container.frozen:
            container.set_frozen("")
            log.info("container goes on", id=container.id)


def mark_frozen(container: Container) -> None:
    """Before a container is frozen: whoever comes after a crash lets it go on."""
    _mark(container).touch(mode=0o600)


def _mark(container: Container) -> Path:
    return container.ref.bundle / "checkpointing"
