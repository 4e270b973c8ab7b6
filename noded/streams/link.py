"""A connection as a pipe of bytes in both directions, and how to notice that the peer has gone."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

READ_BYTES = 64 * 1024
_WRITE_BUFFER_BYTES = 256 * 1024
_LOOK_SECONDS = 86400.0  # the event loop takes no infinite times


class Link(Protocol):
    """Where a protocol's bytes come from and go to."""

    async def read(self) -> bytes:
        """The next bytes, b"" when the peer sends no more."""
        ...

    async def write(self, parts: Sequence[bytes]) -> None:
        """Send all, in the order of calls; returns when the send buffer has room again."""
        ...

    def post(self, parts: Sequence[bytes]) -> None:
        """Send a few small parts without waiting."""
        ...

    async def unless_gone(self, waiting: Coroutine[Any, Any, T]) -> T:
        """Wait for something while not reading. Raises: ConnectionError when the peer goes away."""
        ...


class SocketLink:
    """A link over an accepted connection, plain or TLS.

    Raises in all methods: ConnectionError when the connection is lost.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._pushed = b""
        self._loop = asyncio.get_running_loop()
        self.active_at = self._loop.time()
        writer.transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES)

    def unread(self, data: bytes) -> None:
        """Give back bytes that belong to what is read next."""
        self._pushed = data + self._pushed

    async def read(self) -> bytes:
        if self._pushed:
            data, self._pushed = self._pushed, b""
            return data
        data = await self._reader.read(READ_BYTES)
        self.active_at = self._loop.time()
        return data

    async def write(self, parts: Sequence[bytes]) -> None:
        self.post(parts)
        await self._writer.drain()

    def post(self, parts: Sequence[bytes]) -> None:
        self.active_at = self._loop.time()
        self._writer.write(parts[0] if len(parts) == 1 else b"".join(parts))

    async def unless_gone(self, waiting: Coroutine[Any, Any, T]) -> T:
        task = self._loop.create_task(waiting)
        gone = self._loop.create_task(self._hung_up())
        both: set[asyncio.Task[Any]] = {task, gone}
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise ConnectionResetError("the client has gone")
        finally:
            await cancel_all(both)

    async def idle(self, seconds: float) -> None:
        """Return when no byte has passed for so long."""
        while (left := self.active_at + seconds - self._loop.time()) > 0:  # noqa: ASYNC110 # bytes set no event
            await asyncio.sleep(min(left, _LOOK_SECONDS))

    async def flush(self, seconds: float) -> None:
        """Send all that is left, and the end; give up after so long.

        Read on until the peer closes, too: closing a socket while bytes of the peer are unread
        resets the connection, and the peer might lose what it has not read yet.
        """
        self._writer.transport.set_write_buffer_limits(high=0)
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(seconds):
                await self._writer.drain()
                if self._writer.can_write_eof():
                    self._writer.write_eof()

    async def discard(self, seconds: float) -> None:
        """Read on until the peer closes, at most so long."""
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(seconds):
                while await self.read():
                    pass

    async def close(self) -> None:
        """Close now; what was not sent is dropped."""
        self._writer.transport.abort()
        with suppress(OSError):
            await self._writer.wait_closed()

    async def _hung_up(self) -> None:
        """Return when the peer has closed, although nothing is read.

        asyncio does not look at a transport whose reading is paused. An epoll descriptor that waits
        for nothing but hang-ups is itself pollable.
        """
        sock = self._writer.get_extra_info("socket")
        if sock is None or sock.fileno() < 0:
            return
        hung_up = self._loop.create_future()
        watch = select.epoll(1)
        try:
            watch.register(sock.fileno(), select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR)
            self._loop.add_reader(watch.fileno(), _settle, hung_up)
            await hung_up
        finally:
            self._loop.remove_reader(watch.fileno())
            watch.close()


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def tune(sock: socket.socket) -> None:
    """Options of an accepted connection: keystrokes go at once, a dead peer is found out."""
    with suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)


async def cancel_all(running: Iterable[asyncio.Future[Any]]) -> None:
    """Cancel tasks and wait for their ends, also when the caller is cancelled meanwhile."""
    tasks = set(running)
    for task in tasks:
        task.cancel()
    cancelled: asyncio.CancelledError | None = None
    while any(not task.done() for task in tasks):
        try:
            await asyncio.wait(tasks)
        except asyncio.CancelledError as error:
            cancelled = error
    for task in tasks:
        if not task.cancelled():
            task.exception()  # looked at, so that asyncio does not report it as never retrieved
    if cancelled is not None:
        raise cancelled
