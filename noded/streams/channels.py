"""The channels of one command, over SPDY streams or WebSocket messages."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

from noded.streams.inbox import Inbox
from noded.streams.link import Link
from noded.streams.requests import CommandRequest
from noded.streams.spdy_session import SpdySession, SpdyStream, StreamClosed
from noded.wire import channels as wire
from noded.wire import websocket
from noded.wire.channels import Channel

CREATION_SECONDS = 30.0  # for the client to open its streams


class CommandChannels(Protocol):
    """What a command's session reads from and writes to."""

    @property
    def protocol(self) -> str: ...

    @property
    def inboxes(self) -> Mapping[Channel, Inbox]:
        """STDIN and RESIZE, where there are any."""
        ...

    async def run(self) -> None:
        """Read the connection until the client closes it. Raises: ValueError, ConnectionError."""
        ...

    async def opened(self) -> None:
        """Return when the client has opened every channel that it asked for. Raises: TimeoutError."""
        ...

    async def write(self, channel: Channel, data: bytes) -> None:
        """Send bytes. Raises: ConnectionError when nobody takes them any more."""
        ...

    async def finish(self) -> None:
        """End all channels and the conversation."""
        ...


def _wanted(request: CommandRequest, protocol: str) -> frozenset[Channel]:
    resize = {Channel.RESIZE} if request.tty and wire.has_resize(protocol) else set[Channel]()
    return request.channels | {Channel.ERROR} | resize


class SpdyChannels:
    """Each channel is a stream that the client opens."""

    def __init__(self, link: Link, protocol: str, request: CommandRequest) -> None:
        self.protocol = protocol
        self.inboxes: dict[Channel, Inbox] = {}
        self._wanted = _wanted(request, protocol)
        self._streams: dict[Channel, SpdyStream] = {}
        self._complete = asyncio.Event()
        self._session = SpdySession(link, self._accept)

    async def run(self) -> None:
        await self._session.run()

    async def opened(self) -> None:
        async with asyncio.timeout(CREATION_SECONDS):
            await self._complete.wait()

    def _accept(self, stream: SpdyStream) -> bool:
        channel = wire.STREAM_TYPES.get(stream.headers.get("streamtype", "").lower())
        if channel is None or channel not in self._wanted or channel in self._streams:
            return False
        self._streams[channel] = stream
        if channel in (Channel.STDIN, Channel.RESIZE):
            self.inboxes[channel] = stream.inbox
        else:
            stream.inbox.discard()
        if self._streams.keys() == self._wanted:
            self._complete.set()
        return True

    async def write(self, channel: Channel, data: bytes) -> None:
        stream = self._streams.get(channel)
        if stream is None:
            raise StreamClosed("the client has not opened the stream")
        await stream.write(data)

    async def finish(self) -> None:
        for stream in self._streams.values():
            await stream.end()
        await self._session.go_away()


class WebSocketChannels:
    """Each message names its channel; all channels exist from the start."""

    def __init__(self, link: Link, protocol: str, request: CommandRequest) -> None:
        self.protocol = protocol
        self._link = link
        self._socket = websocket.WebSocket()
        self._decoder = wire.MessageDecoder(protocol)
        self._wanted = _wanted(request, protocol)
        self.inboxes: dict[Channel, Inbox] = {
            channel: Inbox() for channel in (Channel.STDIN, Channel.RESIZE) if channel in self._wanted
        }

    async def opened(self) -> None:
        """Tell the client by an empty message that the channels exist; clients rely on it."""
        first = min(self._wanted - {Channel.STDIN, Channel.RESIZE})
        await self.write(first, b"")

    async def run(self) -> None:
        try:
            while not self._socket.closed and (data := await self._link.read()):
                self._receive(data)
                if parts := self._socket.take():
                    await self._link.unless_gone(self._link.write(parts))
                for inbox in self.inboxes.values():
                    if inbox.full:
                        await self._link.unless_gone(inbox.room())
        finally:
            for inbox in self.inboxes.values():
                inbox.end(lost=True)

    def _receive(self, data: bytes) -> None:
        try:
            for event in self._socket.receive(data):
                if isinstance(event, websocket.Piece):
                    for item in self._decoder.receive(event.data, last=event.last):
                        self._deliver(item)
        except websocket.WebSocketError:
            self._link.post(self._socket.take())
            raise
        except wire.ChannelError as error:
            self._socket.close(websocket.CloseCode.UNSUPPORTED_DATA, str(error))
            self._link.post(self._socket.take())
            raise

    def _deliver(self, item: wire.ChannelData | wire.ChannelEnd) -> None:
        # Channels that the client may not write to, or did not ask for, are ignored.
        inbox = self.inboxes.get(item.channel)  # type: ignore[call-overload] # the client names any number, the keys are enum members
        if inbox is None:
            return
        if isinstance(item, wire.ChannelData):
            inbox.feed(item.data)
        else:
            inbox.end()

    async def write(self, channel: Channel, data: bytes) -> None:
        if self._socket.closed:
            raise StreamClosed("the client has closed the connection")
        self._socket.send(
            *wire.encode_message(self.protocol, channel, data), text=wire.is_base64(self.protocol)
        )
        await self._link.write(self._socket.take())

    async def finish(self) -> None:
        self._socket.close()
        if parts := self._socket.take():
            await self._link.write(parts)
