"""Debts: take-downs that failed and are retried until they succeed.

The record of the object *is* the debt; nothing else remembers it. A pod's Stop or Remove is refused
with the reason for `grace` seconds, so that kubelet shows it; afterwards the client is told success and
the debt stays with noded, hidden from CRI lists, for as long as it takes. A container's removal is
refused as long as it fails, since mounts and processes are left of it, and it stays in the lists.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from contextvars import Context
from dataclasses import dataclass
from typing import Any

import structlog
import trio

from noded.engine.backoff import delays
from noded.engine.container import Container
from noded.engine.registry import Registry
from noded.engine.sandbox import PodSandbox
from noded.errors import InvalidArgument, NotFound
from noded.model.records import Owed

log = structlog.get_logger(__name__)

_FIRST_DELAY_SECONDS = 1.0
_LONGEST_DELAY_SECONDS = 60.0

Debtor = PodSandbox | Container
Retry = Callable[[], Awaitable[None]]


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
    """Everything owed, and retries with growing delays, one task per debt."""

    def __init__(self, nursery: trio.Nursery, registry: Registry, grace_seconds: float) -> None:
        self._nursery = nursery
        self._registry = registry
        self._grace_ns = int(grace_seconds * 1e9)
        self._scheduled: dict[str, int] = {}  # id -> when it is tried next, 0 = now

    async def owe(self, debtor: Debtor, error: BaseException, retry: Retry, **changes: Any) -> None:
        """Record one more failed try, with these changes, and see to it that another follows.

        Args:
            retry: one more try; returns when nothing is owed any more.

        Raises: what kept it from being recorded; another try follows all the same.
        """
        before = debtor.record.owed
        owed = Owed(
            since_ns=before.since_ns if before else time.time_ns(),
            tries=(before.tries if before else 0) + 1,
            stage=debtor.stage,
            last_error=str(error),
        )
        try:
            await debtor.commit(owed=owed, **changes)
        finally:
            self.schedule(debtor, retry)

    def in_grace(self, debtor: Debtor) -> bool:
        """Whether clients are still to be told of the failure."""
        owed = debtor.record.owed
        # A clock that was set back must not hold clients up: a negative age counts as old.
        return owed is not None and 0 <= time.time_ns() - owed.since_ns < self._grace_ns

    def schedule(self, debtor: Debtor, retry: Retry) -> None:
        """Start the retries of this object, unless they run already."""
        if debtor.id not in self._scheduled:
            self._scheduled[debtor.id] = 0
            # In a context of its own: the retries are no part of the call that has failed.
            Context().run(self._nursery.start_soon, self._retry_until_done, debtor, retry)

    def listed(self) -> list[Debt]:
        """Everything owed, for operators."""
        return [
            Debt(
                id=debtor.id,
                kind=owed.stage,
                subject=_subject(debtor),
                since_ns=owed.since_ns,
                tries=owed.tries,
                last_error=owed.last_error,
                next_try_ns=self._scheduled.get(debtor.id, 0),
            )
            for debtor in self._debtors()
            if (owed := debtor.record.owed) is not None
        ]

    def debtor(self, debt_id: str) -> Debtor:
        """Who owes something.

        Args:
            debt_id: its id, or a start of it that fits no other debt.

        Raises: NotFound, InvalidArgument where several fit.
        """
        owing = (one for one in self._debtors() if one.record.owed is not None)
        fitting = [one for one in owing if one.id.startswith(debt_id)]
        if not debt_id or not fitting:
            raise NotFound(f"no debt with id {debt_id!r}: see `noded debts list`")
        if len(fitting) > 1:
            raise InvalidArgument(f"id {debt_id!r} fits {len(fitting)} debts: give more characters")
        return fitting[0]

    def _debtors(self) -> Iterator[Debtor]:
        yield from self._registry.sandboxes()
        yield from self._registry.containers()

    async def _retry_until_done(self, debtor: Debtor, retry: Retry) -> None:
        try:
            for delay in delays(_FIRST_DELAY_SECONDS, _LONGEST_DELAY_SECONDS):
                self._scheduled[debtor.id] = time.time_ns() + int(delay * 1e9)
                await trio.sleep(delay)
                self._scheduled[debtor.id] = 0
                try:
                    await retry()
                    break
                except Exception as error:
                    log.warning("take-down still owed", id=debtor.id, stage=debtor.stage, error=str(error))
        finally:
            self._scheduled.pop(debtor.id, None)


def _subject(debtor: Debtor) -> str:
    if isinstance(debtor, PodSandbox):
        return str(debtor.record.key)
    key = debtor.record.key
    return f"container {key.name}#{key.attempt} of {debtor.sandbox.record.key}"
