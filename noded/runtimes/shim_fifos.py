"""Fifos between a shim and noded: the shim writes, noded reads.

A shim keeps both ends of each fifo open while the process lives. So output waits in the fifo, 64 KiB
of it, while no daemon runs, and the process goes on until that is full.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import trio

from noded.errors import FailedPrecondition, NotFound
from noded.host import libc
from noded.host.inotify import IN_OPEN, Inotify

_READ_BYTES = 65536
_READER_SECONDS = 5.0  # for a shim that has started a process to open its end of the input


def make_fifo(path: Path) -> None:
    """Make a fifo for root only, unless it is there. Raises: FailedPrecondition when another thing is."""
    try:
        os.mkfifo(path, 0o600)
    except FileExistsError:
        if not stat.S_ISFIFO(path.lstat().st_mode):
            raise FailedPrecondition(f"{path} is in the way: it must be a fifo") from None
    except OSError as error:
        raise libc.os_error(error, f"cannot make the fifo {path}") from None


class FifoReader:
    """The reading end of a fifo. Owns a descriptor until `close`."""

    def __init__(self, path: Path, *, endless: bool = False) -> None:
        """Opens at once, whether or not there is a writer.

        Args:
            endless: be a writer, too, so that it never comes to an end.

        Raises: NotFound.
        """
        mode = os.O_RDWR if endless else os.O_RDONLY
        try:
            self._fd = os.open(path, mode | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno == errno.ENOENT:
                raise NotFound(f"there is no fifo {path}") from None
            raise libc.os_error(error, f"cannot open the fifo {path}") from None
        self._ending = False
        self._waiting: trio.CancelScope | None = None

    async def read(self) -> bytes:
        """Return what comes, b"" at the end. Without a writer it waits for one, until `expect_end`.

        Cancellation: safe, nothing is lost.
        """
        await trio.lowlevel.checkpoint()
        while True:
            if not self._ending:
                # Poll says nothing before the first writer has come, while read(2) would say "end".
                with trio.CancelScope() as self._waiting:
                    await trio.lowlevel.wait_readable(self._fd)
                self._waiting = None
            try:
                data = os.read(self._fd, _READ_BYTES)
            except BlockingIOError:
                # A writer is there and has nothing to say.
                await trio.lowlevel.wait_readable(self._fd)
                continue
            return data

    def detach(self) -> int:
        """Give the descriptor away; the caller closes it."""
        fd, self._fd = self._fd, -1
        return fd

    def expect_end(self) -> None:
        """No new writer will come: the absence of one is the end."""
        self._ending = True
        if self._waiting is not None:
            self._waiting.cancel()

    def close(self) -> None:
        """Idempotent. No `read` may be waiting."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


def open_writer(path: Path) -> int:
    """Open the writing end of a fifo, non-blocking; the caller closes it.

    Raises: FailedPrecondition when nobody reads: the process has ended, or has no input.
    """
    try:
        return os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ENOENT):
            raise FailedPrecondition(f"nobody reads from {path}: the process has ended") from None
        raise libc.os_error(error, f"cannot open the fifo {path}") from None


async def await_writer(path: Path) -> int:
    """As `open_writer`, for a process that was just started: its shim opens the other end when it gets to it.

    Raises: FailedPrecondition when nobody reads within 5 s. Cancellation: safe, nothing is open.
    """
    try:
        return open_writer(path)
    except FailedPrecondition:
        inotify = Inotify()
    try:
        # Watched before the next look, so that no opening between the two is missed.
        inotify.watch(path, IN_OPEN)
        with trio.move_on_after(_READER_SECONDS):
            while True:
                try:
                    return open_writer(path)
                except FailedPrecondition:
                    await inotify.read()
        return open_writer(path)
    except NotFound:
        raise FailedPrecondition(f"nobody reads from {path}: the process has ended") from None
    finally:
        inotify.close()


async def write_fifo(fd: int, data: bytes) -> None:
    """Write everything, waiting for room. Raises: BrokenPipeError when nobody reads any more."""
    view = memoryview(data)
    await trio.lowlevel.checkpoint()
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            await trio.lowlevel.wait_writable(fd)
