"""The sessions of port-forward: connections into a pod.

SPDY clients open a pair of streams for each connection, an error stream and a data stream with the
same `requestid` and `port`. Older WebSocket clients have two channels for each port of the request.
"""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import structlog

from noded.errors import NodedError
from noded.streams.inbox import Inbox
from noded.streams.link import READ_BYTES, Link, cancel_all
from noded.streams.requests import Backend, ForwardRequest
from noded.streams.spdy_session import SpdySession, SpdyStream
from noded.wire import channels as wire
from noded.wire import websocket
from noded.wire.channels import PortStream

log = structlog.get_logger(__name__)

PAIR_SECONDS = 30.0  # for the second stream of a pair
# Where ending our side ends the whole connection: how long after the client's end the pod may still be
# silent before it is told of it.
_SILENT_SECONDS = 10.0
_HALF_CLOSED_SECONDS = 60.0  # for a client to end its side after the pod has ended its own


class SpdyForward:
    """Forwards ports for a SPDY client until it closes the connection."""

    def __init__(self, link: Link, request: ForwardRequest, backend: Backend) -> None:
        self._request = request
        self._backend = backend
        self._session = SpdySession(link, self._opened)
        self._pairs: dict[str, dict[PortStream, SpdyStream]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Serve. Cancellation: every connection into the pod is closed."""
        try:
            await self._session.run()
        finally:
            await cancel_all(self._tasks)

    async def finish(self, reason: str) -> None:
        """Say that the connection ends. SPDY has no place for the reason."""
        await self._session.go_away()

    def _opened(self, stream: SpdyStream) -> bool:
        try:
            kind = PortStream(stream.headers.get("streamtype", "").lower())
        except ValueError:
            return False
        if _port(stream.headers.get("port", "")) is None:
            return False
        # Clients without request ids open the error stream first, the data stream with the next id.
        ordinal = stream.id if kind is PortStream.ERROR else stream.id - 2
        name = stream.headers.get("requestid") or f"stream {ordinal}"
        pair = self._pairs.setdefault(name, {})
        if kind in pair:
            return False
        pair[kind] = stream
        if kind is PortStream.ERROR:
            stream.inbox.discard()
        if len(pair) == 1:
            self._start(self._expire(name, pair))
        else:
            del self._pairs[name]
            self._start(self._forward(pair[PortStream.DATA], pair[PortStream.ERROR]))
        return True

    def _start(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _expire(self, name: str, pair: dict[PortStream, SpdyStream]) -> None:
        await asyncio.sleep(PAIR_SECONDS)
        if self._pairs.get(name) is pair:
            del self._pairs[name]
            for stream in pair.values():
                stream.reset()
            with suppress(OSError):
                await self._session.flush()

    async def _forward(self, data: SpdyStream, error: SpdyStream) -> None:
        port = _port(data.headers["port"])
        assert port is not None
        try:
            message = await forward(self._request, port, data.inbox, data.write, data.end, self._backend)
            if message:
                await error.write(message.encode())
            await data.end()
            await error.end()
        except OSError as failure:
            log.debug("forwarded connection lost", port=port, reason=str(failure))
        finally:
            for stream in (data, error):
                stream.reset()
            with suppress(OSError):
                await self._session.flush()


class WebSocketForward:
    """Forwards the ports of the request, each once, for a WebSocket client."""

    def __init__(self, link: Link, protocol: str, request: ForwardRequest, backend: Backend) -> None:
        self._link = link
        self._protocol = protocol
        self._request = request
        self._backend = backend
        self._socket = websocket.WebSocket()
        self._decoder = wire.MessageDecoder(protocol)
        self._inboxes = [Inbox() for _ in request.ports]

    async def run(self) -> None:
        """Serve. Cancellation: every connection into the pod is closed."""
        tasks = {
            asyncio.ensure_future(self._forward(index, port))
            for index, port in enumerate(self._request.ports)
        }
        try:
            await self._read()
        finally:
            await cancel_all(tasks)

    async def finish(self, reason: str) -> None:
        """Say that the connection ends, and why."""
        self._socket.close(websocket.CloseCode.GOING_AWAY, reason)
        if parts := self._socket.take():
            await self._link.write(parts)

    async def _read(self) -> None:
        while not self._socket.closed and (data := await self._link.read()):
            try:
                events = self._socket.receive(data)
            except websocket.WebSocketError:
                self._link.post(self._socket.take())
                raise
            for event in events:
                if isinstance(event, websocket.Piece):
                    for item in self._decoder.receive(event.data, last=event.last):
                        index, is_error = divmod(item.channel, 2)
                        if isinstance(item, wire.ChannelData) and not is_error and index < len(self._inboxes):
                            self._inboxes[index].feed(item.data)
            if parts := self._socket.take():
                await self._link.unless_gone(self._link.write(parts))
            for inbox in self._inboxes:
                if inbox.full:
                    await self._link.unless_gone(inbox.room())

    async def _forward(self, index: int, port: int) -> None:
        async def write(data: bytes) -> None:
            await self._send(2 * index, data)

        async def nothing() -> None:
            """A channel cannot be ended: the client sees no more data."""

        try:
            for channel in (2 * index, 2 * index + 1):
                await self._send(channel, port.to_bytes(2, "little"))
            message = await forward(self._request, port, self._inboxes[index], write, nothing, self._backend)
            if message:
                await self._send(2 * index + 1, message.encode())
        except OSError as failure:
            log.debug("forwarded connection lost", port=port, reason=str(failure))
        self._inboxes[index].discard()

    async def _send(self, channel: int, data: bytes) -> None:
        self._socket.send(
            *wire.encode_message(self._protocol, channel, data), text=wire.is_base64(self._protocol)
        )
        if parts := self._socket.take():
            await self._link.write(parts)


async def forward(
    request: ForwardRequest,
    port: int,
    inbox: Inbox,
    write: Callable[[bytes], Awaitable[None]],
    end: Callable[[], Awaitable[None]],
    backend: Backend,
) -> str:
    """Carry one connection to its end; return what to tell the client, "" when all went well.

    Raises: OSError when the client's side is lost. Cancellation: the connection is closed.
    """
    opened: list[socket.socket] = []
    try:
        try:
            half_closes = await backend.connect(request, port, opened.append)
        except NodedError as error:
            return str(error)
        return await _carry(opened[0], inbox, write, end, half_closes)
    finally:
        inbox.discard()
        for sock in opened:
            sock.close()


async def _carry(
    sock: socket.socket,
    inbox: Inbox,
    write: Callable[[bytes], Awaitable[None]],
    end: Callable[[], Awaitable[None]],
    half_closes: bool,
) -> str:
    loop = asyncio.get_running_loop()
    silent_since = loop.time()  # of the pod; infinity while it is the client who keeps us waiting

    async def upstream() -> None:
        with suppress(OSError):  # the pod reads no more; what it still sends counts
            while data := await inbox.read():
                await loop.sock_sendall(sock, data)
                await asyncio.sleep(0)
            if not inbox.lost:
                if not half_closes:
                    await silence()
                sock.shutdown(socket.SHUT_WR)
        inbox.discard()

    async def silence() -> None:
        """Return when the pod has ended, or said nothing for a while: then its answer is complete."""
        nonlocal silent_since
        silent_since = max(silent_since, loop.time())
        while (left := silent_since + _SILENT_SECONDS - loop.time()) > 0:
            done, _ = await asyncio.wait({down}, timeout=min(left, _SILENT_SECONDS))
            if done:
                return

    async def downstream() -> str:
        nonlocal silent_since
        while True:
            silent_since = loop.time()
            try:
                data = await loop.sock_recv(sock, READ_BYTES)
            except OSError as error:
                return f"the connection was lost: {error.strerror or error}"
            if not data:
                await end()
                return ""
            silent_since = math.inf
            await write(data)
            await asyncio.sleep(0)

    down, up = asyncio.ensure_future(downstream()), asyncio.ensure_future(upstream())
    abandoned = asyncio.ensure_future(inbox.abandoned.wait())
    tasks: set[asyncio.Future[Any]] = {down, up, abandoned}
    try:
        await asyncio.wait({down, abandoned}, return_when=asyncio.FIRST_COMPLETED)
        if not down.done():
            return ""
        if not down.result():
            await asyncio.wait(
                {up, abandoned}, timeout=_HALF_CLOSED_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
        return down.result()
    finally:
        await cancel_all(tasks)


def _port(text: str) -> int | None:
    """A port in decimal, None when it is none."""
    if text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535:
        return int(text)
    return None
