"""conmon's attach socket: the streams of a task's own process."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import trio

from noded.errors import FailedPrecondition, NodedError, Unavailable
from noded.runtimes.records import ATTACH_SOCKET

_CONNECT_SECONDS = 10.0


async def attach_open(bundle: Path) -> int:
    """See `noded.model.runtime.Sandbox.attach_open`."""
    sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with trio.move_on_after(_CONNECT_SECONDS):
            directory = _open(bundle)
            try:
                # The path of a bundle may be longer than a socket address.
                await sock.connect(f"/proc/self/fd/{directory}/{ATTACH_SOCKET}")
            finally:
                os.close(directory)
            return sock.detach()
        raise Unavailable(
            f"the container's monitor takes no attachment: no answer within {_CONNECT_SECONDS:g} s"
        )
    except OSError as error:
        raise _refused(error) from None
    finally:
        sock.close()


def _open(bundle: Path) -> int:
    try:
        return os.open(bundle, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise FailedPrecondition("cannot attach: the container is gone") from None


def _refused(error: OSError) -> NodedError:
    if error.errno in (errno.ENOENT, errno.ECONNREFUSED):
        return FailedPrecondition("cannot attach: the container does not run")
    return Unavailable(f"cannot connect to the container's monitor: {error.strerror or error}")
