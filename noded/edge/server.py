"""The gRPC server of the daemon.

grpclib brings HTTP/2. Its own server is not used: it cancels calls that a shutdown should let
finish, answers unknown methods without a content-type (which grpc-go does not take for
UNIMPLEMENTED), puts no limit on messages and reports deadlines in its own words.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable, Collection, Iterable

import structlog
from grpclib.protocol import Stream as H2Stream

from noded.edge.call import Call, Headers, Observer, Service
from noded.edge.codec import Codec
from noded.edge.connection import Connection
from noded.edge.method import Method, table
from noded.tracing.spans import Record

log = structlog.get_logger(__name__)

LIMIT_BYTES = 16 * 2**20  # kubelet's own limit for what it receives

_UNWIND_SECONDS = 5.0  # for calls that are cancelled at the end of the grace period
_GOODBYE_SECONDS = 1.0  # for clients to take the last bytes
_BACKLOG = 128


class Server:
    """Serves a table of methods on listening sockets.

    All methods run in the event loop that started the server. `drain` ends it; it cannot be
    started again.
    """

    def __init__(
        self,
        methods: Iterable[Method],
        *,
        limit_bytes: int = LIMIT_BYTES,
        observe: Observer | None = None,
        record: Callable[[str, str], Record | None] | None = None,
    ) -> None:
        self._service = Service(table(methods), Codec(), limit_bytes, observe, record)
        self._listeners: list[asyncio.Server] = []
        self._connections: set[Connection] = set()
        self._accepting = True

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
            log.warning(
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

    def _running(self) -> list[tuple[Call, asyncio.Task[None]]]:
        return [item for connection in self._connections for item in connection.calls.running()]

    def _protocol(self) -> Connection:
        return Connection(self._open_call, self._connections.add, self._connections.discard)

    def _open_call(self, stream: H2Stream, headers: Headers) -> Call:
        return Call(self._service, stream, headers, accepting=self._accepting)


async def _wait(
    tasks: Collection[asyncio.Future[None] | asyncio.Task[bool] | asyncio.Task[None]], seconds: float
) -> bool:
    """Wait for all; return whether they are done. `asyncio.wait` cancels nothing."""
    if not tasks:
        return True
    _, pending = await asyncio.wait(tasks, timeout=seconds)
    return not pending
