"""The sessions of exec and attach: bytes between a command and its client."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import structlog

from noded.errors import NodedError
from noded.model.runtime import ExecStream
from noded.streams.channels import CommandChannels
from noded.streams.descriptors import read_now, readable, waiting_bytes, write_all
from noded.streams.inbox import Inbox
from noded.streams.link import cancel_all
from noded.streams.requests import Backend, CommandRequest
from noded.wire.channels import Channel, ChannelError, ResizeParser, TerminalSize, error_status, exit_status

log = structlog.get_logger(__name__)

# After the command's end its background children may hold its output open for ever.
_LINGER_SECONDS = 0.3
# conmon writes to attachers one after the other and waits for each: one that does not read holds
# up the container's output and log. So it is dropped.
_STALL_SECONDS = 60.0
_ATTACH_PACKET_BYTES = 64 * 1024  # conmon sends 8192 and one
_ATTACH_INPUT_BYTES = 32 * 1024  # what conmon takes at once
_CTRL_D = b"\x04"


async def run_exec(channels: CommandChannels, request: CommandRequest, backend: Backend) -> None:
    """Run a command for a client until it ends.

    Cancellation: the client has gone. A terminal is hung up; without one the command's input ends
    and its output breaks, it may finish what it does.
    """
    opened: list[ExecStream] = []
    try:
        if not await _open(channels, backend.open_exec(request, opened.append)):
            return
        try:
            code = await _exec(channels, request, opened[0], backend)
        except NodedError as error:
            await _fail(channels, error)
        else:
            await _conclude(channels, exit_status(channels.protocol, code))
    finally:
        for stream in opened:
            stream.close()


async def _exec(
    channels: CommandChannels, request: CommandRequest, stream: ExecStream, backend: Backend
) -> int:
    async def resize(size: TerminalSize) -> None:
        await backend.resize_exec(stream, size.width, size.height)

    async def end_input() -> None:
        if stream.terminal >= 0:
            # A terminal has no half close: what its line discipline takes for an end must do.
            await write_all(stream.terminal, _CTRL_D)
        else:
            stream.close_stdin()

    ended = asyncio.ensure_future(backend.exit_code(stream))
    outputs = [(stream.terminal, Channel.STDOUT), (stream.stdout, Channel.STDOUT)]
    outputs.append((stream.stderr, Channel.STDERR))
    wanted = request.channels
    pumps: list[Coroutine[Any, Any, None]] = [
        _pump_out(fd, channels, channel if channel in wanted else None, ended)
        for fd, channel in outputs
        if fd >= 0
    ]
    target = stream.terminal if stream.terminal >= 0 else stream.stdin
    async with (
        _background(_pump_sizes(channels, resize)),
        _background(_pump_in(channels, lambda data: write_all(target, data), end_input)),
        _background(*pumps, ended) as tasks,
    ):
        await _all(tasks)
        return ended.result()


async def run_attach(channels: CommandChannels, request: CommandRequest, backend: Backend) -> None:
    """Attach a client to a container's streams until the container ends."""
    opened: list[socket.socket] = []
    try:
        if not await _open(channels, backend.open_attach(request, opened.append)):
            return
        await _attach(channels, request, opened[0], backend)
        await _conclude(channels, exit_status(channels.protocol, 0))
    finally:
        for sock in opened:
            sock.close()


async def _open(channels: CommandChannels, opening: Coroutine[Any, Any, None]) -> bool:
    """Wait for the client's channels, then open the other side; tell the client what goes wrong."""
    try:
        await channels.opened()
    except TimeoutError:
        opening.close()
        await say_goodbye(channels, "the client did not open its streams in time")
        return False
    except BaseException:
        opening.close()
        raise
    try:
        await opening
    except Exception as error:  # whatever the core says, it is not about this connection
        await _fail(channels, error)
        return False
    return True


async def _attach(
    channels: CommandChannels, request: CommandRequest, sock: socket.socket, backend: Backend
) -> None:
    loop = asyncio.get_running_loop()

    async def resize(size: TerminalSize) -> None:
        await backend.resize_container(request, size.width, size.height)

    async def write(data: bytes) -> None:
        for at in range(0, len(data), _ATTACH_INPUT_BYTES):
            await loop.sock_sendall(sock, data[at : at + _ATTACH_INPUT_BYTES])

    async def end_input() -> None:
        sock.shutdown(socket.SHUT_WR)

    wanted = request.channels
    async with (
        _background(_pump_sizes(channels, resize)),
        _background(_pump_in(channels, write, end_input)),
    ):
        while True:
            try:
                packet = await loop.sock_recv(sock, _ATTACH_PACKET_BYTES)
            except ConnectionError:
                return
            if not packet:
                return
            channel = Channel.STDERR if packet[0] == Channel.STDERR + 1 else Channel.STDOUT
            if channel in wanted:
                try:
                    async with asyncio.timeout(_STALL_SECONDS):
                        await channels.write(channel, packet[1:])
                except TimeoutError:
                    raise ConnectionAbortedError(
                        f"the attached client took no output for {_STALL_SECONDS:g} s"
                    ) from None
            await asyncio.sleep(0)


# pumps


async def _pump_out(
    fd: int, channels: CommandChannels, channel: Channel | None, ended: asyncio.Future[int]
) -> None:
    """Send output until its end; after the command's own end what it left, and a little longer.

    Without a channel the output is read and dropped.
    """
    loop = asyncio.get_running_loop()
    left, until = -1, 0.0
    while True:
        if ended.done() and left < 0:
            left, until = waiting_bytes(fd), loop.time() + _LINGER_SECONDS
        data = read_now(fd)
        if data is None:
            if left < 0:
                await readable(fd, ended)
            elif loop.time() < until:
                await readable(fd, None, until - loop.time())
            else:
                return
            continue
        if not data:
            return
        if channel is not None:
            await channels.write(channel, data)
        await asyncio.sleep(0)  # neither reading nor writing need have waited
        if left >= 0:
            left = max(0, left - len(data))
            if not left and loop.time() >= until:
                return


async def _pump_in(
    channels: CommandChannels,
    write: Callable[[bytes], Awaitable[None]],
    end: Callable[[], Awaitable[None]],
) -> None:
    inbox = channels.inboxes.get(Channel.STDIN)
    if inbox is None:
        return
    try:
        while data := await inbox.read():
            await write(data)
        if not inbox.lost:
            await end()
    except OSError:  # nobody reads any more: no fault of the client
        pass
    inbox.discard()


async def _pump_sizes(channels: CommandChannels, resize: Callable[[TerminalSize], Awaitable[None]]) -> None:
    inbox: Inbox | None = channels.inboxes.get(Channel.RESIZE)
    if inbox is None:
        return
    parser = ResizeParser()
    try:
        while data := await inbox.read():
            # Of sizes that came together only the last one matters.
            for size in parser.receive(data)[-1:]:
                if size.width and size.height:
                    await resize(size)
    except (ChannelError, NodedError, OSError) as error:
        log.debug("terminal size not set", reason=str(error))
    inbox.discard()


# the end


async def say_goodbye(channels: CommandChannels, reason: str) -> None:
    """End a session from our side: without a word clients would take the end for success."""
    await _conclude(channels, error_status(channels.protocol, reason))


async def _conclude(channels: CommandChannels, status: bytes) -> None:
    if status:
        await channels.write(Channel.ERROR, status)
    await channels.finish()


async def _fail(channels: CommandChannels, error: Exception) -> None:
    if not isinstance(error, NodedError):
        log.error("stream failed", exc_info=error)
    await say_goodbye(channels, str(error) or type(error).__name__)


@asynccontextmanager
async def _background(*work: Awaitable[Any]) -> AsyncIterator[set[asyncio.Future[Any]]]:
    """Run coroutines beside the body, and end them with it."""
    tasks: set[asyncio.Future[Any]] = {asyncio.ensure_future(each) for each in work}
    try:
        yield tasks
    finally:
        await cancel_all(tasks)


async def _all(tasks: set[asyncio.Future[Any]]) -> None:
    """Wait for all; the first failure is raised at once."""
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    for task in done:
        task.result()
