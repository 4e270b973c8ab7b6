"""A SPDY connection in asyncio: streams as objects that can be read and written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from noded.streams.inbox import Inbox
from noded.streams.link import Link
from noded.wire import spdy

_BUFFER_BYTES = 4 * 1024 * 1024  # in all inboxes of a connection together
WRITE_BYTES = 64 * 1024  # of one data frame, so that streams take turns


class StreamClosed(ConnectionError):
    """The peer has given the stream up."""


class SpdyStream:
    """One stream. `inbox` has what the peer sends; writing waits for the peer's window."""

    def __init__(self, session: SpdySession, stream_id: int, headers: Mapping[str, str]) -> None:
        self._session = session
        self.id = stream_id
        self.headers = headers
        self.inbox = Inbox(self._consumed)

    async def write(self, data: bytes) -> None:
        """Send bytes. Raises: StreamClosed; ConnectionError when the connection is lost."""
        await self._session.send(self.id, data)

    async def end(self) -> None:
        """Send the end of the stream; one that is closed already is success."""
        self._session.connection.send_data(self.id, b"", fin=True)
        await self._session.flush()

    def reset(self, status: spdy.Status = spdy.Status.CANCEL) -> None:
        """Give the stream up, both ways. Idempotent."""
        self._session.connection.reset(self.id, status)
        self._session.forget(self.id)
        self.inbox.discard()
        self.inbox.end()

    def _consumed(self, count: int) -> None:
        self._session.consumed(self.id, count)


class SpdySession:
    """Reads a connection and keeps its streams.

    Args:
        opened: called with each new stream; returns whether it is accepted.
    """

    def __init__(self, link: Link, opened: Callable[[SpdyStream], bool]) -> None:
        self._link = link
        self._opened = opened
        self._streams: dict[int, SpdyStream] = {}
        self._windows: set[asyncio.Future[None]] = set()
        self._buffered = 0
        self._drained: asyncio.Future[None] | None = None
        self.connection = spdy.SpdyConnection()

    async def run(self) -> None:
        """Read until the peer closes. Raises: SpdyError, ConnectionError."""
        try:
            while data := await self._link.read():
                touched = self._receive(data)
                if parts := self.connection.take():
                    await self._link.unless_gone(self._link.write(parts))
                for inbox in touched:
                    if inbox.full:
                        await self._link.unless_gone(inbox.room())
                if self._buffered > _BUFFER_BYTES:
                    await self._link.unless_gone(self._drain())
        finally:
            for stream in self._streams.values():
                stream.inbox.end(lost=True)
            self._wake()

    def _receive(self, data: bytes) -> set[Inbox]:
        try:
            events = self.connection.receive(data)
        except spdy.SpdyError:
            self._link.post(self.connection.take())
            raise
        touched = set()
        for event in events:
            if isinstance(event, spdy.DataReceived):
                stream = self._streams.get(event.stream_id)
                if stream is None:
                    self.connection.consumed(event.stream_id, len(event.data))
                else:
                    self._buffered += len(event.data)
                    stream.inbox.feed(event.data)
                    touched.add(stream.inbox)
            elif isinstance(event, spdy.StreamOpened):
                self._open(event)
            elif isinstance(event, spdy.StreamEnded):
                if (stream := self._streams.get(event.stream_id)) is not None:
                    stream.inbox.end()
            elif isinstance(event, spdy.StreamReset):
                if (stream := self._streams.pop(event.stream_id, None)) is not None:
                    stream.inbox.abandon()
                self._wake()
            elif isinstance(event, spdy.WindowOpened):
                self._wake()
        return touched

    def _open(self, event: spdy.StreamOpened) -> None:
        stream = SpdyStream(self, event.stream_id, event.headers)
        if event.fin:
            stream.inbox.end()
        self._streams[stream.id] = stream
        if self._opened(stream):
            self.connection.reply(stream.id)
        else:
            stream.reset(spdy.Status.REFUSED_STREAM)

    async def send(self, stream_id: int, data: bytes) -> None:
        """Send data on a stream as its window opens."""
        view = memoryview(data)
        while view:
            room = self.connection.sendable(stream_id)
            if room < 0:
                raise StreamClosed("the client has closed the stream")
            if room == 0:
                opened = asyncio.get_running_loop().create_future()
                self._windows.add(opened)
                try:
                    await opened
                finally:
                    self._windows.discard(opened)
                continue
            part = view[: min(room, WRITE_BYTES)]
            self.connection.send_data(stream_id, part)
            view = view[len(part) :]
            await self.flush()

    async def flush(self) -> None:
        if parts := self.connection.take():
            await self._link.write(parts)

    async def _drain(self) -> None:
        while self._buffered > _BUFFER_BYTES:
            self._drained = asyncio.get_running_loop().create_future()
            await self._drained

    def consumed(self, stream_id: int, count: int) -> None:
        """Bytes have left a stream's inbox: they make room for others."""
        self._buffered -= count
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self.connection.consumed(stream_id, count)
        if parts := self.connection.take():
            self._link.post(parts)

    def forget(self, stream_id: int) -> None:
        """Drop a stream that is done both ways."""
        self._streams.pop(stream_id, None)

    async def go_away(self) -> None:
        """Say that the connection ends here."""
        self.connection.go_away()
        await self.flush()

    def _wake(self) -> None:
        for future in self._windows:
            if not future.done():
                future.set_result(None)
