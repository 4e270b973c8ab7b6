"""Pipes and terminals in asyncio: non-blocking descriptors that somebody else owns."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import sys
import termios

READ_BYTES = 64 * 1024


def read_now(fd: int) -> bytes | None:
    """What can be read now: None = nothing yet, b"" = the end."""
    try:
        return os.read(fd, READ_BYTES)
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno == errno.EIO:  # a terminal whose other side has been closed (pty(7))
            return b""
        raise


def waiting_bytes(fd: int) -> int:
    """How many bytes can be read from a pipe or terminal at least."""
    try:
        raw = fcntl.ioctl(fd, termios.FIONREAD, bytes(4))
    except OSError:
        return 0
    return int.from_bytes(raw, sys.byteorder)


async def readable(fd: int, or_done: asyncio.Future[int] | None = None, seconds: float | None = None) -> None:
    """Return when `fd` can be read, another future is done, or the time is over."""
    loop = asyncio.get_running_loop()
    woken = loop.create_future()

    def wake(_: object = None) -> None:
        if not woken.done():
            woken.set_result(None)

    timer = None if seconds is None else loop.call_later(max(0.0, seconds), wake)
    loop.add_reader(fd, wake)
    if or_done is not None:
        or_done.add_done_callback(wake)
    try:
        await woken
    finally:
        loop.remove_reader(fd)
        if or_done is not None:
            or_done.remove_done_callback(wake)
        if timer is not None:
            timer.cancel()


async def write_all(fd: int, data: bytes) -> None:
    """Write everything. Raises: OSError, BrokenPipeError when nobody reads any more."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            await _writable(fd)
    await asyncio.sleep(0)


async def _writable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    woken = loop.create_future()

    def wake() -> None:
        if not woken.done():
            woken.set_result(None)

    loop.add_writer(fd, wake)
    try:
        await woken
    finally:
        loop.remove_writer(fd)
