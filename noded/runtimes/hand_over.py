"""Sockets in a bundle at which a runtime hands something over while one of its commands runs."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import trio


def listen_in(directory: Path, name: str) -> trio.socket.SocketType:
    """Listen for one connection to a new socket file. Its path may be longer than an address can be.

    Raises: OSError. Blocks for the directory entry only.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        parent = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            listener.bind(f"/proc/self/fd/{parent}/{name}")
        finally:
            os.close(parent)
        listener.listen(1)
        return trio.socket.from_stdlib_socket(listener)
    except BaseException:
        listener.close()
        raise
