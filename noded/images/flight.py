"""Single flight: many callers who want the same thing share one task.

The task lives in a long-lived nursery, not in its first caller: a caller who leaves (is cancelled)
disturbs nobody, and the last one who leaves cancels the task and waits for it to unwind.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from typing import Final, Generic, TypeVar

import trio

from noded.errors import NodedError, Unavailable
from noded.tracing.spans import held, wait

UNWIND_SECONDS: Final = 30.0  # how long a cancelled caller waits for its task's cleanup to end

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")
Work = Callable[[], Awaitable[T]]
Begin = Callable[[], Work[T]]


class Flight(Generic[T]):
    """One shared task and what came of it."""

    def __init__(self) -> None:
        self.waiters = 0
        self.doomed = False  # its last waiter has left and it is unwinding
        self.scope = trio.CancelScope()
        self.done = trio.Event()
        self.error: Exception | None = None
        self.values: list[T] = []

    def result(self) -> T:
        """Raise the task's error or return its value."""
        if self.error is not None:
            raise self.error
        if not self.values:
            raise Unavailable("noded is stopping: try again when it is up")
        return self.values[0]


class Ticket(Generic[K, T]):
    """A place on a flight. Whoever holds it awaits `wait` exactly once."""

    def __init__(
        self, flights: Flights[K, T], key: K, begin: Begin[T], flight: Flight[T], mine: bool
    ) -> None:
        self._flights, self._key, self._begin = flights, key, begin
        self._flight, self._mine = flight, mine

    async def wait(self, *, own_failures_only: bool = False) -> T:
        """Return or raise what the task did.

        Args:
            own_failures_only: when a flight that somebody else began fails, begin another one
                instead of taking over its error: its beginner had other sources or credentials.

        Cancellation: safe. The last waiter cancels the task and waits for its unwinding.
        """
        flight = self._flight
        try:
            if self._mine:
                await flight.done.wait()
            else:
                with wait("wait for another call that does the same"):
                    await flight.done.wait()
        finally:
            flight.waiters -= 1
            if flight.waiters == 0 and not flight.done.is_set():
                flight.doomed = True
                flight.scope.cancel()
                with trio.move_on_after(UNWIND_SECONDS, shield=True):
                    await flight.done.wait()
        if own_failures_only and not self._mine and isinstance(flight.error, NodedError):
            return await self._flights.join(self._key, self._begin, own_failures_only=True)
        return flight.result()


class Flights(Generic[K, T]):
    """The flights in the air, by key."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._flights: dict[K, Flight[T]] = {}

    def __contains__(self, key: K) -> bool:
        return key in self._flights

    def __len__(self) -> int:
        return len(self._flights)

    async def join(self, key: K, begin: Begin[T], *, own_failures_only: bool = False) -> T:
        """Share the flight of this key, starting it when there is none. See `Ticket.wait`."""
        ticket = await self.board(key, begin)
        return await ticket.wait(own_failures_only=own_failures_only)

    async def board(self, key: K, begin: Begin[T]) -> Ticket[K, T]:
        """Take a place, after a doomed flight of the same key has landed.

        Args:
            begin: called when this caller starts the flight, with no checkpoint between the look
                and the call; returns the coroutine function to run.
        """
        while (flight := self._flights.get(key)) is not None and flight.doomed:
            await flight.done.wait()
        if flight is not None:
            flight.waiters += 1
            return Ticket(self, key, begin, flight, mine=False)
        work = begin()
        flight = self._flights[key] = Flight()
        flight.waiters = 1
        self._nursery.start_soon(self._fly, key, flight, work)
        return Ticket(self, key, begin, flight, mine=True)

    async def _fly(self, key: K, flight: Flight[T], work: Work[T]) -> None:
        try:
            with held(), flight.scope:
                flight.values.append(await work())
        except Exception as error:  # kept for the waiters, who raise it in their own tasks
            flight.error = error
        finally:
            del self._flights[key]
            flight.done.set()
