"""Operations: work that several callers may wait for and that outlives any one of them.

A create is keyed by the identity that kubelet retries with, so a retry joins the work in progress
and gets its result; "name is reserved" is never an answer. Work is cancelled when its last waiter
leaves. A caller whose *deadline* passes does not leave: the bridge lets its task go on waiting
(see `Caller.gone`), so the work goes on under its own budgets.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Hashable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import trio

from noded.errors import Aborted
from noded.tracing.spans import held, wait, waited

T = TypeVar("T")


@dataclass(eq=False)
class Caller:
    """The client behind a task: what it waits for, and whether it still listens."""

    gone: bool = False
    operation: Operation[Any] | None = None
    handed_over_ns: int = 0  # when one event loop passed it to the other, by time.monotonic_ns()
    left: Callable[[], Awaitable[None]] | None = None  # undoes a result that no longer reached it

    def doing(self) -> str:
        """What the caller waits for, for the message of a passed deadline."""
        return self.operation.doing() if self.operation else "waiting"


CALLER: ContextVar[Caller | None] = ContextVar("noded_caller", default=None)


@dataclass(eq=False)
class Operation(Generic[T]):
    """One piece of work in progress."""

    title: str
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    done: trio.Event = field(default_factory=trio.Event)
    started: float = field(default_factory=time.monotonic)
    waiters: int = 0
    ended_ns: int = 0  # by time.monotonic_ns()
    stage: Callable[[], str] = lambda: ""
    abandoned: Callable[[T], None] | None = None
    value: T | None = None
    error: Exception | None = None

    def doing(self) -> str:
        """Such as "create of pod web: 12 s, at network"."""
        stage = self.stage()
        text = f"{self.title}: {time.monotonic() - self.started:.0f} s so far"
        return f"{text}, at {stage}" if stage else text


class Operations:
    """The operations in progress, by key."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._running: dict[Hashable, Operation[Any]] = {}

    async def join(
        self,
        key: Hashable,
        title: str,
        work: Callable[[Operation[T]], Awaitable[T]],
        *,
        abandoned: Callable[[T], None] | None = None,
    ) -> T:
        """Wait for the operation of this key, starting it when there is none.

        Args:
            abandoned: told the result when it came just as the last caller left.

        Raises: what the work raises; Aborted when noded shuts down meanwhile.
        Cancellation: leaves; the last one to leave cancels the work and waits until it has unwound.
        """
        while True:
            operation = self._running.get(key)
            if operation is None:
                operation = Operation(title, abandoned=abandoned)
                self._running[key] = operation
                self._nursery.start_soon(self._run, key, operation, work)
                return await self._wait(operation)
            if operation.scope.cancel_called:  # being unwound: start anew afterwards
                with wait("wait until an earlier try is undone"):
                    await operation.done.wait()
                continue
            with wait("wait for an earlier call", operation=operation.title):
                return await self._wait(operation)

    async def cancel(self, key: Hashable) -> None:
        """Give up the operation of this key, if there is one, and wait until it has unwound."""
        operation = self._running.get(key)
        if operation is not None:
            operation.scope.cancel()
            await operation.done.wait()

    async def _wait(self, operation: Operation[T]) -> T:
        caller = CALLER.get()
        if caller is not None:
            caller.operation = operation
        operation.waiters += 1
        try:
            await operation.done.wait()
        except trio.Cancelled:
            operation.waiters -= 1
            if operation.waiters == 0:
                operation.scope.cancel()
                with trio.CancelScope(shield=True):
                    await operation.done.wait()
                if operation.error is None and operation.abandoned is not None:
                    operation.abandoned(operation.value)  # type: ignore[arg-type] # as below
            raise
        waited("wait for the event loop", operation.ended_ns)
        if operation.error is not None:
            raise operation.error
        return operation.value  # type: ignore[return-value] # set whenever error is not

    async def _run(
        self, key: Hashable, operation: Operation[T], work: Callable[[Operation[T]], Awaitable[T]]
    ) -> None:
        operation.error = Aborted(f"{operation.title} was given up: its last client left or noded stops")
        try:
            with held(), operation.scope:
                operation.value = await work(operation)
                operation.error = None
        except Exception as error:
            operation.error = error
        finally:
            del self._running[key]
            operation.ended_ns = time.monotonic_ns()
            operation.done.set()
