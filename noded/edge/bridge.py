"""The bridge: carries a call from the asyncio edge into the trio core and its outcome back.

Theory of operation. asyncio is the outer loop, trio runs as its guest in the same thread, so the
two sides share memory and never run at the same time; a call costs two loop turns, no lock.

A call can end in two ways that are not an answer. When the *client cancels*, the task in the core
is cancelled and the bridge waits for its unwinding, so that a cancelled create has left nothing
when the stream ends. When the client's *deadline passes* and the call may `detach`, the caller is
told so at once and marked as gone, while its task goes on waiting in the core: the operation
continues and a retry joins it. grpc-go also resets the stream when its deadline passes, so a
cancel that arrives at the deadline counts as the deadline.

`asyncio.shield` is not used: it lets go of the inner future on the first cancel.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import structlog
import trio

from noded.engine.operations import CALLER, Caller
from noded.errors import Aborted, DeadlineExceeded, Unavailable
from noded.tracing.spans import wait, waited

T = TypeVar("T")

log = structlog.get_logger(__name__)

_DEADLINE_SLACK_SECONDS = 0.25  # a reset this close to the deadline was caused by it


class Bridge:
    """Runs async functions of the core for callers on the edge."""

    def __init__(self) -> None:
        self._token: trio.lowlevel.TrioToken | None = None
        self._nursery: trio.Nursery | None = None
        self._ready: trio.Event | None = None
        self._pending: set[asyncio.Future[object]] = set()
        self._closed = "noded is starting: try again in a moment"

    def open(self, nursery: trio.Nursery, ready: trio.Event) -> None:
        """Called in the core: calls run in `nursery` from now on, once `ready` is set."""
        self._token = trio.lowlevel.current_trio_token()
        self._nursery = nursery
        self._ready = ready

    def close(self, reason: str) -> None:
        """Refuse new calls and fail those in flight with Unavailable."""
        self._token = None
        self._closed = reason
        for future in list(self._pending):
            if not future.done():
                future.set_exception(Unavailable(reason))

    async def call(
        self,
        function: Callable[..., Awaitable[T]],
        *args: object,
        deadline_seconds: float | None = None,
        detach: bool = False,
    ) -> T:
        """Run `function(*args)` in the core and return what it returns.

        Args:
            deadline_seconds: the client's remaining time; None = it waits for ever.
            detach: at the deadline leave the work running instead of cancelling it.

        Raises: what the function raises; DeadlineExceeded naming the stage; Unavailable when the
            core is not (or no longer) there.
        Cancellation: cancels the work and returns when it has unwound.
        """
        if self._token is None:
            raise Unavailable(self._closed)
        token = self._token
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        caller, scope = Caller(), trio.CancelScope()
        caller.handed_over_ns = time.monotonic_ns()
        context = contextvars.copy_context()
        context.run(CALLER.set, caller)
        self._pending.add(future)  # type: ignore[arg-type] # futures are invariant, this set only fails them
        future.add_done_callback(self._forget)
        token.run_sync_soon(context.run, self._spawn, future, scope, function, args)
        started = loop.time()
        try:
            await asyncio.wait({future}, timeout=deadline_seconds)
        except asyncio.CancelledError:
            slack = _DEADLINE_SLACK_SECONDS
            if detach and deadline_seconds is not None and loop.time() - started > deadline_seconds - slack:
                caller.gone = True
                future.add_done_callback(_consume)
            else:
                await self._unwind(token, scope, future)
                succeeded = not future.cancelled() and future.exception() is None
                if succeeded and caller.left is not None:
                    token.run_sync_soon(context.run, self._start, caller.left)
            raise
        if future.done():
            waited("wait for the event loop", caller.handed_over_ns)
            return future.result()
        if detach:
            caller.gone = True
            future.add_done_callback(_consume)
            raise DeadlineExceeded(f"{caller.doing()}; it goes on, ask again for its result")
        doing = caller.doing()
        await self._unwind(token, scope, future)
        raise DeadlineExceeded(f"{doing}; it was cancelled at the client's deadline")

    async def _unwind(
        self, token: trio.lowlevel.TrioToken, scope: trio.CancelScope, future: asyncio.Future[T]
    ) -> None:
        """Cancel the work and wait for its end, whatever happens to the caller meanwhile."""
        token.run_sync_soon(scope.cancel)
        future.add_done_callback(_consume)
        while not future.done():
            try:
                await asyncio.wait({future})
            except asyncio.CancelledError:
                continue  # the unwinding is bounded by the rungs' own budgets

    def _start(self, function: Callable[[], Awaitable[None]]) -> None:
        if self._nursery is not None:
            with suppress(RuntimeError):  # the nursery has closed: the next start looks after it
                self._nursery.start_soon(function)

    def _spawn(
        self,
        future: asyncio.Future[T],
        scope: trio.CancelScope,
        function: Callable[..., Awaitable[T]],
        args: tuple[object, ...],
    ) -> None:
        assert self._nursery is not None
        try:
            self._nursery.start_soon(self._run, future, scope, function, args)
        except RuntimeError:  # the nursery has closed
            if not future.done():
                future.set_exception(Unavailable("noded is stopping: try again after its restart"))

    async def _run(
        self,
        future: asyncio.Future[T],
        scope: trio.CancelScope,
        function: Callable[..., Awaitable[T]],
        args: tuple[object, ...],
    ) -> None:
        error: BaseException = Aborted("the call was cancelled")
        try:
            with scope:
                assert self._ready is not None
                if (caller := CALLER.get()) is not None:
                    waited("wait for the event loop", caller.handed_over_ns)
                if not self._ready.is_set():
                    with wait("wait until noded is ready"):
                        await self._ready.wait()
                value = await function(*args)
                if not future.done():
                    future.set_result(value)
                return
        except Exception as failure:
            error = failure
        finally:
            if not future.done():
                future.set_exception(error)
            if (caller := CALLER.get()) is not None:
                caller.handed_over_ns = time.monotonic_ns()

    def _forget(self, future: asyncio.Future[T]) -> None:
        self._pending.discard(future)


def _consume(future: asyncio.Future[T]) -> None:
    """Look at an abandoned outcome, so that asyncio does not report it as never retrieved."""
    if not future.cancelled():
        future.exception()
