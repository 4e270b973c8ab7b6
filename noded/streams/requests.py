"""What a token stands for, and what a session needs of the core."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from noded.model.runtime import ExecStream
from noded.wire.channels import Channel


@dataclass(frozen=True, slots=True)
class CommandRequest:
    """An exec, or with an empty `command` an attach. `tty` excludes `stderr`."""

    container_id: str
    command: tuple[str, ...] = ()
    tty: bool = False
    stdin: bool = False
    stdout: bool = False
    stderr: bool = False

    @property
    def channels(self) -> frozenset[Channel]:
        """The channels that the client asked for, without error and resize."""
        wanted = {Channel.STDIN: self.stdin, Channel.STDOUT: self.stdout, Channel.STDERR: self.stderr}
        return frozenset(channel for channel, asked in wanted.items() if asked)


@dataclass(frozen=True, slots=True)
class ForwardRequest:
    """A port-forward. `ports` is for clients that cannot name a port per connection."""

    sandbox_id: str
    ports: tuple[int, ...] = ()


StreamRequest = CommandRequest | ForwardRequest


class Backend(Protocol):
    """The core as sessions see it.

    What is opened is handed over through a callback, not as a result: a cancelled call may have
    opened it all the same, and must not lose it.
    """

    async def open_exec(self, request: CommandRequest, adopt: Callable[[ExecStream], None]) -> None:
        """Start the command."""
        ...

    async def exit_code(self, stream: ExecStream) -> int:
        """Wait for the end of the command."""
        ...

    async def resize_exec(self, stream: ExecStream, width: int, height: int) -> None:
        """Set the size of the command's terminal."""
        ...

    async def open_attach(self, request: CommandRequest, adopt: Callable[[socket.socket], None]) -> None:
        """Connect to the container's monitor."""
        ...

    async def resize_container(self, request: CommandRequest, width: int, height: int) -> None:
        """Set the size of the container's terminal."""
        ...

    async def connect(
        self, request: ForwardRequest, port: int, adopt: Callable[[socket.socket], None]
    ) -> bool:
        """Connect to a port inside the pod; tell whether the sending side can be ended by itself."""
        ...
