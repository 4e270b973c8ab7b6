"""Background work of the shim driver.

It goes on from a task's creation to its deletion, whether or not anybody waits for the task, so it
belongs to no call. trio's system tasks are its nursery: a runtime handler is opened without one. At
the end of trio's run it is cancelled.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog
import trio

_log = structlog.get_logger(__name__)


class Pump:
    """One background task. It ends by itself or by `stop`; an error ends it with a log message."""

    def __init__(self, name: str, work: Callable[[], Awaitable[None]], clean_up: Callable[[], None]) -> None:
        self._name = name
        self._work = work
        self._clean_up = clean_up
        self._scope = trio.CancelScope()
        self.ended = trio.Event()
        trio.lowlevel.spawn_system_task(self._run, name=name)

    async def _run(self) -> None:
        try:
            with self._scope:
                await self._work()
        except Exception:
            # Whatever it is, it must not take the daemon down, as errors of system tasks do.
            _log.exception("pump_failed", name=self._name)
        finally:
            self._clean_up()
            self.ended.set()

    async def stop(self, *, grace_seconds: float = 0.0) -> None:
        """End it, after at most the grace; returns when it has ended and closed what it had open."""
        with trio.move_on_after(grace_seconds):
            await self.ended.wait()
        self._scope.cancel()
        with trio.CancelScope(shield=True):
            await self.ended.wait()
