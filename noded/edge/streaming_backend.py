"""What sessions need of the core, through the bridge."""

from __future__ import annotations

import socket
from collections.abc import Callable

from noded.edge.cri.core import Bridge, Streams
from noded.model.runtime import ExecStream
from noded.streams.requests import CommandRequest, ForwardRequest


class CoreBackend:
    """Implements `noded.streams.requests.Backend`."""

    def __init__(self, bridge: Bridge, streams: Streams) -> None:
        self._bridge = bridge
        self._streams = streams

    async def open_exec(self, request: CommandRequest, adopt: Callable[[ExecStream], None]) -> None:
        await self._bridge.call(
            self._streams.exec, request.container_id, request.command, request.tty, request.stdin, adopt
        )

    async def exit_code(self, stream: ExecStream) -> int:
        return await self._bridge.call(stream.wait)

    async def resize_exec(self, stream: ExecStream, width: int, height: int) -> None:
        await self._bridge.call(stream.resize, width, height)

    async def open_attach(self, request: CommandRequest, adopt: Callable[[socket.socket], None]) -> None:
        await self._bridge.call(self._streams.attach, request.container_id, adopt)

    async def resize_container(self, request: CommandRequest, width: int, height: int) -> None:
        await self._bridge.call(self._streams.resize, request.container_id, width, height)

    async def connect(
        self, request: ForwardRequest, port: int, adopt: Callable[[socket.socket], None]
    ) -> bool:
        return await self._bridge.call(self._streams.connect, request.sandbox_id, port, adopt)
