"""How plugins come in: the installed ones are started, others connect to the socket."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import structlog
import trio

from noded.config import NriConfig
from noded.errors import NodedError
from noded.host import sockets
from noded.nri.launch import Installed, find_installed
from noded.nri.listener import accept_plugins

if TYPE_CHECKING:
    from noded.nri.service import Service

log = structlog.get_logger(__name__)


async def let_in(
    config: NriConfig,
    service: Callable[[], Service],
    plugins: trio.Nursery,
    task_status: trio.TaskStatus[None],
) -> None:
    """Start the installed plugins, take connections of others, until cancelled.

    Started once the installed ones take part, or have failed to in their time.

    Args:
        service: asked for when the first plugin is there, because it imports much.
        plugins: nursery of the installed plugins.
    """
    installed = await trio.to_thread.run_sync(find_installed, config.plugin_path, config.plugin_config_path)
    await _start(installed, service, plugins)
    listener = None if config.disable_connections else await _listen(config)
    task_status.started()
    if listener is None:
        await trio.sleep_forever()
        return

    async def serve(stream: trio.SocketStream, pid: int) -> None:
        await service().serve(stream, pid)

    try:
        await accept_plugins(listener, serve)
    finally:
        listener.close()
        sockets.unlink(config.socket)


async def _start(
    installed: Sequence[Installed], service: Callable[[], Service], plugins: trio.Nursery
) -> None:
    settled = [trio.Event() for _ in installed]
    for one, event in zip(installed, settled, strict=True):
        plugins.start_soon(service().serve_installed, one, event.set)
    for event in settled:
        await event.wait()


async def _listen(config: NriConfig) -> socket.socket | None:
    try:
        return await trio.to_thread.run_sync(lambda: sockets.bind(config.socket, field="nri.socket"))
    except (NodedError, OSError) as error:  # another runtime of this node has it: pods matter more
        log.warning("NRI plugins cannot connect", error=str(error))
        return None
