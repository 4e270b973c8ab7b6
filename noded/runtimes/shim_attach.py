"""Attaching to a task of a shim: its output to every attached client, their input to its fifo.

The clients' side is what `noded.model.runtime.Sandbox.attach_open` describes; a monitor of its own
gives the same for other runtimes.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import structlog
import trio

from noded.errors import FailedPrecondition, NodedError
from noded.runtimes.shim_fifos import await_writer, write_fifo
from noded.runtimes.shim_pump import Pump
from noded.runtimes.shim_record import STDIN_FIFO, STDIN_ONCE_FILE

_log = structlog.get_logger(__name__)

_KINDS: Final = {"stdout": b"\2", "stderr": b"\3"}
_OUTPUT_BYTES: Final = 8192  # in a packet
_INPUT_BYTES: Final = 32 * 1024
_STALL_SECONDS: Final = 10.0  # a client that takes nothing for so long holds up the log: it is dropped


class Attachments:
    """The attached clients of one task."""

    def __init__(self, bundle: Path) -> None:
        self._bundle = bundle
        self._clients: dict[trio.socket.SocketType, Pump] = {}
        self._stdin = -1
        self._closed = False
        # Two streams send to one client, and many clients write to one fifo.
        self._sending = trio.Lock()
        self._writing = trio.Lock()

    def open(self, end_input: Callable[[], Awaitable[None]]) -> int:
        """Add a client; return its descriptor, the caller's.

        Args:
            end_input: tells the shim that the input has ended.

        Raises: FailedPrecondition when the task has ended.
        """
        if self._closed:
            raise FailedPrecondition("cannot attach: the container does not run")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        theirs.setblocking(False)
        client = trio.socket.from_stdlib_socket(ours)

        async def read() -> None:
            await self._read(client, end_input)

        self._clients[client] = Pump(f"attachment to {self._bundle.name}", read, lambda: None)
        return theirs.detach()

    async def send(self, stream: str, data: bytes) -> None:
        """Give output to all clients; one that takes none for 10 s is dropped."""
        if not self._clients:
            return
        async with self._sending:
            for client in tuple(self._clients):
                with trio.move_on_after(_STALL_SECONDS) as scope:
                    try:
                        for at in range(0, len(data), _OUTPUT_BYTES):
                            await client.send(_KINDS[stream] + data[at : at + _OUTPUT_BYTES])
                    except (OSError, trio.ClosedResourceError):
                        self._drop(client)
                if scope.cancelled_caught:
                    _log.warning("attached_client_dropped", container=self._bundle.name)
                    self._drop(client)

    def close(self) -> None:
        """The task has ended, and so have its clients. Idempotent."""
        self._closed = True
        for client in tuple(self._clients):
            self._drop(client)
        self._close_stdin()

    async def _read(self, client: trio.socket.SocketType, end_input: Callable[[], Awaitable[None]]) -> None:
        gave_input = False
        try:
            while data := await client.recv(_INPUT_BYTES):
                gave_input |= await self._write(data)
        except (OSError, trio.ClosedResourceError):
            self._drop(client)
            return
        hung_up = _hung_up(client)
        if hung_up:
            self._drop(client)
        if self._closed or not (self._bundle / STDIN_ONCE_FILE).exists():
            return
        if gave_input or not hung_up:
            await self._write(b"")  # an end is seen only by who has seen a beginning
            self._close_stdin()
            try:
                await end_input()
            except NodedError as error:
                _log.debug("input_not_ended", container=self._bundle.name, reason=str(error))

    async def _write(self, data: bytes) -> bool:
        """Write to the task's input; False, and the data is lost, when it has none."""
        async with self._writing:
            try:
                if self._stdin < 0:
                    # Open until the task ends, else the end of one client's input would be the task's.
                    self._stdin = await await_writer(self._bundle / STDIN_FIFO)
                await write_fifo(self._stdin, data)
            except (BrokenPipeError, NodedError):
                return False
            return True

    def _drop(self, client: trio.socket.SocketType) -> None:
        if self._clients.pop(client, None) is not None:
            client.close()

    def _close_stdin(self) -> None:
        if self._stdin >= 0:
            fd, self._stdin = self._stdin, -1
            trio.lowlevel.notify_closing(fd)
            os.close(fd)


def _hung_up(client: trio.socket.SocketType) -> bool:
    """Tell whether the other side is closed, not only its sending direction."""
    poll = select.poll()
    poll.register(client.fileno(), 0)
    return any(events & select.POLLHUP for _, events in poll.poll(0))
