"""The socket to which plugins connect."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
import trio

log = structlog.get_logger(__name__)

_CONNECTIONS: Final = 64
_PAUSE_SECONDS: Final = 1.0  # after no connection could be taken, for want of a descriptor
_PEER: Final = struct.Struct("3i")  # struct ucred: unix(7)


async def accept_plugins(
    listener: socket.socket, serve: Callable[[trio.SocketStream, int], Awaitable[None]]
) -> None:
    """Serve every connection until cancelled; at most 64 at once, others wait.

    Args:
        listener: a listening unix socket.
        serve: serves one connection, whose peer has this pid; never raises.
    """
    listener.setblocking(False)
    accepting = trio.socket.from_stdlib_socket(listener)
    room = trio.Semaphore(_CONNECTIONS)
    async with trio.open_nursery() as nursery:
        while True:
            await room.acquire()
            try:
                connection, _ = await accepting.accept()
            except OSError as error:
                room.release()
                log.warning("no NRI plugin can connect now", error=os.strerror(error.errno or 0))
                await trio.sleep(_PAUSE_SECONDS)
                continue
            nursery.start_soon(_serve, connection, serve, room)


async def _serve(
    connection: trio.socket.SocketType,
    serve: Callable[[trio.SocketStream, int], Awaitable[None]],
    room: trio.Semaphore,
) -> None:
    try:
        peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        await serve(trio.SocketStream(connection), _PEER.unpack(peer)[0])
    finally:
        connection.close()
        room.release()
