"""The gRPC server of the daemon.

grpclib brings HTTP/2. Its own server is not used: it cancels calls that a shutdown should let
finish, answers unknown methods without a content-type (which grpc-go does not take for
UNIMPLEMENTED), puts no limit on messages and reports deadlines in its own words.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from noded.edge.connection import AnyCall, Connection
from noded.edge.early import EarlyCall, Gate

if TYPE_CHECKING:  # a server listens before there is anything to serve
    from grpclib.protocol import Stream as H2Stream

    from noded.edge.call import Call, Headers, Observer
    from noded.edge.method import Method
    from noded.tracing.spans import Record

LIMIT_BYTES = 16 * 2**20  # kubelet's own limit for what it receives

# A start takes a second or so, and more after an upgrade that rewrites the database.
_HELD_SECONDS = 60.0
_UNWIND_SECONDS = 5.0  # for calls that are cancelled at the end of the grace period
_GOODBYE_SECONDS = 1.0  # for clients to take the last bytes
# As many as systemd queues: listening with less would refuse who came while the daemon was away.
_BACKLOG = 4096


class Server:
    """Serves a table of methods on listening sockets.

    It may listen before it has the methods: calls wait for `serve`, but for those that `known` answers.
    All methods run in the event loop that started the server. `drain` ends it; it cannot be
    started again.

    Args:
        known: answers to list methods without a filter, by path, good until `serve`.
        limit_bytes: size of the largest message, in either direction.
        held_seconds: how long a call waits for `serve`; then it is told that the server is unavailable.
    """

    def __init__(
        self,
        known: Mapping[str, bytes] | None = None,
        *,
        limit_bytes: int = LIMIT_BYTES,
        held_seconds: float = _HELD_SECONDS,
    ) -> None:
        self._gate = Gate(known or {}, limit_bytes, held_seconds)
        self._listeners: list[asyncio.Server] = []
        self._connections: set[Connection] = set()
        self._accepting = True

    @property
    def answered_early(self) -> int:
        """How many lists were answered before `serve`."""
        return self._gate.answered

    async def heard(self, seconds: float) -> None:
        """Wait until all that is known was asked for once, no longer than `seconds`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._gate.asked.wait()

    def serve(
        self,
        methods: Iterable[Method],
        *,
        observe: Observer | None = None,
        record: Callable[[str, str], Record | None] | None = None,
    ) -> None:
        """Let calls in. `observe` and `record` as in `noded.edge.call.Service`.

        Raises: ValueError when two methods have one path.
        """
        from noded.edge.call import Call, Service
        from noded.edge.codec import Codec
        from noded.edge.method import table

        service = Service(table(methods), Codec(), self._gate.limit_bytes, observe, record)

        def make(
            stream: H2Stream, headers: Headers, *, request: bytes | None = None, arrived: float | None = None
        ) -> Call:
            accepting = self._accepting
            return Call(service, stream, headers, accepting=accepting, request=request, arrived=arrived)

        self._gate.open(make)

    async def start(self, listener: socket.socket) -> None:
        """Accept connections on a bound socket; `drain` closes it. May be called for several."""
        loop = asyncio.get_running_loop()
        if sys.version_info >= (3, 13):
            # Who bound the socket removes its file: it may belong to systemd.
            server = await loop.create_unix_server(
                self._protocol, sock=listener, backlog=_BACKLOG, cleanup_socket=False
            )
        else:
            server = await loop.create_unix_server(self._protocol, sock=listener, backlog=_BACKLOG)
        self._listeners.append(server)

    async def drain(self, grace_seconds: float) -> bool:
        """Stop: refuse new calls, let unary ones finish, then end streams and connections.

        Returns whether every unary call finished within `grace_seconds`; those that did not are
        cancelled. Takes a few seconds more than the grace at worst, whatever clients do. Idempotent.
        """
        self._accepting = False
        for listener in self._listeners:
            listener.close()
        # Not `Server.wait_closed`: from Python 3.12 it waits for clients to hang up.
        unary = [task for call, task in self._running() if not call.streaming]
        finished = await _wait(unary, grace_seconds)
        for call, _ in self._running():
            call.end()
        if not await _wait([task for _, task in self._running()], _UNWIND_SECONDS):
            import structlog

            structlog.get_logger(__name__).warning(
                "calls did not unwind", methods=sorted(task.get_name() for _, task in self._running())
            )
        connections = list(self._connections)
        for connection in connections:
            connection.goodbye()
        closing = [asyncio.ensure_future(connection.closed.wait()) for connection in connections]
        if not await _wait(closing, _GOODBYE_SECONDS):
            for connection in connections:
                connection.abort()
            await _wait(closing, _GOODBYE_SECONDS)
        return finished

    def _running(self) -> list[tuple[AnyCall, asyncio.Task[None]]]:
        return [item for connection in self._connections for item in connection.calls.running()]

    def _protocol(self) -> Connection:
        return Connection(self._open_call, self._connections.add, self._connections.discard)

    def _open_call(self, stream: H2Stream, headers: Headers) -> AnyCall:
        if self._gate.make is not None:
            return self._gate.make(stream, headers)
        return EarlyCall(self._gate, stream, headers)


async def _wait(
    tasks: Collection[asyncio.Future[None] | asyncio.Task[bool] | asyncio.Task[None]], seconds: float
) -> bool:
    """Wait for all; return whether they are done. `asyncio.wait` cancels nothing."""
    if not tasks:
        return True
    _, pending = await asyncio.wait(tasks, timeout=seconds)
    return not pending
