"""Port forwarding by a command of the runtime, into a network stack that only the runtime can reach.

`runsc port-forward --stream SOCKET ID PORT` connects to a unix socket, hands that connection to the
sandbox process, which connects to the port and copies from then on, and ends. So a connection costs a
process at its start only, and lasts until one of its two sides ends; whoever vanishes leaves nothing.

The socket is a file in the sandbox's bundle, which is root's alone, while the command runs. A daemon
that is killed then leaves the file; it goes with the sandbox.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from noded.errors import FailedPrecondition, Internal, Unavailable
from noded.runtimes.command import CommandLine
from noded.runtimes.failures import ending, runtime_error
from noded.runtimes.hand_over import listen_in
from noded.runtimes.records import FORWARD_PREFIX, FORWARDS_FILE

_COMMAND_SECONDS = 10.0  # it takes some hundredths; what connects inside may hang
_ACCEPT_SECONDS = 5.0  # from the command's success to its connection: that was made before
_MOST_COMMANDS = 4  # at once; the sandbox process takes one after the other anyway

# gVisor's own words (pkg/tcpip/errors.go), and those of connect(2).
_REFUSED = re.compile(r"connection (was )?refused", re.IGNORECASE)


def arguments(name: str, task_id: str, port: int) -> Sequence[str]:
    """The verb's arguments. `name` is the socket's, in the command's working directory."""
    return (f"--stream={name}", task_id, str(port))


def refused(words: bytes) -> bool:
    """Whether a command that failed says that nobody listens."""
    return _REFUSED.search(words.decode(errors="replace")) is not None


@dataclass(frozen=True, slots=True)
class Forwards:
    """How to connect into the sandboxes of one handler."""

    command: CommandLine
    runtime_name: str
    limiter: trio.CapacityLimiter

    async def open(self, task_id: str, bundle: Path, port: int) -> int:
        """See `noded.model.runtime.Sandbox.forward_open`; `task_id` is a running task of the pod."""
        async with self.limiter:
            try:
                return await self._open(task_id, bundle, port)
            except ConnectionRefusedError:
                raise
            except OSError as error:
                raise Unavailable(f"cannot forward port {port}: {error.strerror or error}") from error

    async def _open(self, task_id: str, bundle: Path, port: int) -> int:
        if not (bundle / FORWARDS_FILE).exists():
            raise FailedPrecondition(
                f"this pod was started by a release of {self.runtime_name} that cannot forward ports: "
                "start the pod anew"
            )
        name = FORWARD_PREFIX + secrets.token_hex(8)
        with listen_in(bundle, name) as listener:
            try:
                done = await self.command.run(
                    "port-forward",
                    *arguments(name, task_id, port),
                    timeout_seconds=_COMMAND_SECONDS,
                    cwd=bundle,
                )
            finally:
                (bundle / name).unlink(missing_ok=True)
            if done.returncode != 0:
                if refused(done.stderr):
                    raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
                raise runtime_error(
                    f"{self.runtime_name} could not forward port {port}", done.stderr, ending(done.returncode)
                )
            with trio.move_on_after(_ACCEPT_SECONDS):
                connection, _ = await listener.accept()
                return connection.detach()  # trio's sockets do not block
        raise Internal(f"{self.runtime_name} port-forward succeeded but did not connect to its socket")


def new_limiter() -> trio.CapacityLimiter:
    """What bounds the commands of one handler that run at once."""
    return trio.CapacityLimiter(_MOST_COMMANDS)
