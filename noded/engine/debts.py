"""Debts: take-downs that failed and are retried until they succeed.

The record of the object *is* the debt; nothing else remembers it. For `grace` seconds a client's
Stop or Remove is refused with the reason, so that kubelet shows it; afterwards the client is told
success and the debt stays with noded, hidden from CRI lists, for as long as it takes.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
import trio

from noded.engine.backoff import delays
from noded.engine.sandbox import PodSandbox
from noded.model.records import Owed

log = structlog.get_logger(__name__)

_FIRST_DELAY_SECONDS = 1.0
_LONGEST_DELAY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Debt:
    """One debt as operators see it."""

    id: str
    kind: str
    subject: str
    since_ns: int
    tries: int
    last_error: str
    next_try_ns: int  # 0 = it is being tried now


class Debts:
    """Retries with growing delays, one task per debt."""

    def __init__(
        self, nursery: trio.Nursery, grace_seconds: float, retry: Callable[[PodSandbox], Awaitable[None]]
    ) -> None:
        self._nursery = nursery
        self._grace_ns = int(grace_seconds * 1e9)
        self._retry = retry
        self._scheduled: dict[str, int] = {}  # id -> when it is tried next, 0 = now

    async def owe(self, sandbox: PodSandbox, error: Exception) -> None:
        """Record one more failed try and see to it that another follows."""
        before = sandbox.record.owed
        await sandbox.commit(
            owed=Owed(
                since_ns=before.since_ns if before else time.time_ns(),
                tries=(before.tries if before else 0) + 1,
                stage=sandbox.stage,
                last_error=str(error),
            )
        )
        self.schedule(sandbox)

    def in_grace(self, sandbox: PodSandbox) -> bool:
        """Whether clients are still to be told of the failure."""
        owed = sandbox.record.owed
        # A clock that was set back must not hold clients up: a negative age counts as old.
        return owed is not None and 0 <= time.time_ns() - owed.since_ns < self._grace_ns

    def schedule(self, sandbox: PodSandbox) -> None:
        """Start the retries of this sandbox, unless they run already."""
        if sandbox.id not in self._scheduled:
            self._scheduled[sandbox.id] = 0
            self._nursery.start_soon(self._retry_until_done, sandbox)

    def next_try_ns(self, sandbox: PodSandbox) -> int:
        """When its next try begins, ns since the epoch; 0 = now."""
        return self._scheduled.get(sandbox.id, 0)

    async def _retry_until_done(self, sandbox: PodSandbox) -> None:
        try:
            for delay in delays(_FIRST_DELAY_SECONDS, _LONGEST_DELAY_SECONDS):
                self._scheduled[sandbox.id] = time.time_ns() + int(delay * 1e9)
                await trio.sleep(delay)
                self._scheduled[sandbox.id] = 0
                try:
                    await self._retry(sandbox)
                    break
                except Exception as error:
                    log.warning("take-down still owed", id=sandbox.id, stage=sandbox.stage, error=str(error))
        finally:
            self._scheduled.pop(sandbox.id, None)
