"""A ttrpc client for trio.

Each call has a connection of its own: connecting to a unix socket costs some ten microseconds, and
a call that is cancelled or broken half-way then cannot spoil another one. Closing the connection is
how ttrpc cancels: the server cancels the context of the call.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from dataclasses import dataclass, field
from typing import Final, TypeVar

import trio

from noded.errors import DeadlineExceeded, Unavailable
from noded.wire.ttrpc import Code, Frame, FrameReader, FrameType, Request, Response
from noded.wire.ttrpc_protobuf import Message

M = TypeVar("M", bound=Message)

_STREAM: Final = 1
_READ_BYTES: Final = 65536
_CALLS_AT_ONCE: Final = 64
_NS_PER_SECOND: Final = 1_000_000_000
_QUEUE_SECONDS: Final = 5  # for a full queue of connections to become shorter
_SOCKET_PATH_BYTES: Final = 107  # sockaddr_un without the final NUL


class Refused(Exception):
    """The server answered a call with an error: its status code and its own words."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(words)
        self.code = code
        self.words = words


class ConnectionLost(Unavailable):
    """The server is not there, or went away during the call; whether it acted is not known."""


def socket_path(address: str) -> str:
    """Return what to connect to for `unix:///PATH` or `unix://@NAME` (abstract), for sockets.

    Raises: ValueError.
    """
    scheme, separator, path = address.partition("://")
    if not separator or scheme != "unix" or path[:1] not in ("/", "@"):
        raise ValueError(f"{address!r} is not the address of a unix socket (unix:///...)")
    if len(path.encode()) > _SOCKET_PATH_BYTES:
        raise ValueError(f"{address!r} is too long for a socket: more than {_SOCKET_PATH_BYTES} bytes")
    return "\0" + path[1:] if path.startswith("@") else path


@dataclass(frozen=True, slots=True, weakref_slot=True)
class TtrpcClient:
    """Calls one server. Use it from any number of tasks; 64 calls run at once, others queue.

    Args:
        address: of the server, `unix:///PATH`.
        peer: names the server in errors, e.g. "the shim of pod sandbox 0123".
    """

    address: str
    peer: str
    _limiter: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(_CALLS_AT_ONCE))

    async def call(
        self, service: str, method: str, request: Message, reply: type[M], *, timeout_seconds: float | None
    ) -> M:
        """Make one call.

        Args:
            timeout_seconds: None = wait as long as the server lives; such calls do not queue.

        Raises: Refused with the server's status; ConnectionLost; DeadlineExceeded; Unavailable when
            the server does not speak ttrpc.
        Cancellation: safe; the server is told by the end of the connection.
        """
        if timeout_seconds is None:
            return await self._call(service, method, request, reply, 0.0)
        with trio.move_on_after(timeout_seconds):
            async with self._limiter:
                return await self._call(service, method, request, reply, timeout_seconds)
        raise DeadlineExceeded(f"{self.peer} did not answer {method} within {timeout_seconds:g} s")

    async def _call(
        self, service: str, method: str, request: Message, reply: type[M], timeout_seconds: float
    ) -> M:
        timeout_nano = int(timeout_seconds * _NS_PER_SECOND)
        call = Request(service, method, request.encode(), timeout_nano)
        frame = Frame(_STREAM, FrameType.REQUEST, call.encode()).encode()
        plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with plain:
            try:
                await _connect(plain, socket_path(self.address))
                connection = trio.socket.from_stdlib_socket(plain)
                await _send_all(connection, frame)
                response = await self._receive(connection, method)
            except OSError as error:
                raise self._lost(method, error) from error
            except ValueError as error:
                raise Unavailable(
                    f"{self.peer} does not speak ttrpc in its answer to {method}: {error}"
                ) from None
        status = response.status
        if status is not None and status.code != Code.OK:
            raise Refused(status.code, status.message)
        try:
            return reply.decode(response.payload)
        except ValueError as error:
            raise Unavailable(
                f"{self.peer} gave an answer to {method} that cannot be read: {error}"
            ) from None

    async def _receive(self, connection: trio.socket.SocketType, method: str) -> Response:
        reader = FrameReader()
        while True:
            data = await connection.recv(_READ_BYTES)
            if not data:
                how = "in the middle of its answer to" if reader.incomplete else "before it answered"
                raise ConnectionLost(f"{self.peer} closed the connection {how} {method}")
            for frame in reader.feed(data):
                if frame.stream_id != _STREAM or frame.type != FrameType.RESPONSE:
                    raise ValueError(f"a frame of type {frame.type} for stream {frame.stream_id}")
                return Response.decode(frame.data)

    def _lost(self, method: str, error: OSError) -> ConnectionLost:
        if error.errno == errno.EAGAIN:
            return ConnectionLost(f"{self.peer} takes no connection for {method}: its queue is full")
        if error.errno in (errno.ENOENT, errno.ECONNREFUSED):
            return ConnectionLost(f"{self.peer} is not there for {method}: {error.strerror} ({self.address})")
        return ConnectionLost(f"{self.peer} went away during {method}: {error.strerror or error}")


async def _connect(plain: socket.socket, path: str) -> None:
    """Connect, and leave the socket non-blocking. Raises: OSError."""
    plain.setblocking(False)
    try:
        plain.connect(path)
        await trio.lowlevel.checkpoint()
        return
    except BlockingIOError:
        pass
    # The server's queue is full. Only a blocking connect(2) waits for room there, as long as
    # SO_SNDTIMEO says (unix(7), socket(7)). When we are cancelled the socket is its thread's.
    waiting = socket.socket(fileno=os.dup(plain.fileno()))
    await trio.to_thread.run_sync(_connect_blocking, waiting, path, abandon_on_cancel=True)


def _connect_blocking(waiting: socket.socket, path: str) -> None:
    with waiting:
        waiting.setblocking(True)
        waiting.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", _QUEUE_SECONDS, 0))
        waiting.connect(path)
        waiting.setblocking(False)


async def _send_all(connection: trio.socket.SocketType, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[await connection.send(view) :]
