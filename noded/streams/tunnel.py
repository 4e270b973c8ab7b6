"""SPDY inside WebSocket: a link whose bytes are the payloads of binary messages.

Newer clients tunnel port-forwards this way, because proxies pass WebSocket and not SPDY.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from noded.streams.link import Link
from noded.wire import websocket

T = TypeVar("T")


class WebSocketTunnel:
    """Implements `Link` over another one."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._socket = websocket.WebSocket()

    async def read(self) -> bytes:
        while not self._socket.closed and (data := await self._link.read()):
            try:
                events = self._socket.receive(data)
            except websocket.WebSocketError:
                self._link.post(self._socket.take())
                raise
            if parts := self._socket.take():
                await self._link.unless_gone(self._link.write(parts))
            # Text has no place in a tunnel; what it holds would not be SPDY anyway.
            payload = b"".join(event.data for event in events if isinstance(event, websocket.Piece))
            if payload:
                return payload
        return b""

    async def write(self, parts: Sequence[bytes]) -> None:
        self._socket.send(*parts)
        if out := self._socket.take():
            await self._link.write(out)

    def post(self, parts: Sequence[bytes]) -> None:
        self._socket.send(*parts)
        if out := self._socket.take():
            self._link.post(out)

    async def unless_gone(self, waiting: Coroutine[Any, Any, T]) -> T:
        return await self._link.unless_gone(waiting)

    async def finish(self) -> None:
        """Close the WebSocket."""
        self._socket.close()
        if out := self._socket.take():
            await self._link.write(out)
