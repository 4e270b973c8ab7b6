"""conmon's control fifo: reopening the log and resizing the terminal.

conmon re-reads the first line when several arrive in one read, so lines are written one at a
time, each after the one before has been taken.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import termios
from pathlib import Path

import trio

from noded.errors import DeadlineExceeded, FailedPrecondition, NotFound, Unavailable
from noded.host.inotify import IN_CREATE, IN_MOVED_TO, Inotify
from noded.runtimes.records import CONTROL_FIFO

_REOPEN = "2 0 0\n"
_REOPEN_SECONDS = 10.0
_TAKEN_SECONDS = 2.0
# The fifo has no event for "empty again"; a monitor takes a line within a fraction of this.
_TAKEN_STEP_SECONDS = 0.005


async def resize(bundle: Path, width: int, height: int) -> None:
    """Set the terminal size. Raises: FailedPrecondition when the monitor is gone."""
    await _send(bundle, f"1 {height} {width}\n")


async def reopen_log(bundle: Path, log_path: Path) -> None:
    """Make conmon write to a new file at `log_path`; it exists at return.

    conmon creates a temporary file and renames it, so a file that is still there is replaced.

    Raises:
        NotFound: the log's directory is gone (conmon would give up and die).
        FailedPrecondition: the monitor is gone.
        DeadlineExceeded: the monitor does not react.
    Cancellation: safe; conmon may reopen nevertheless.
    """
    if not log_path.parent.is_dir():
        raise NotFound(f"cannot reopen the log {log_path}: its directory does not exist")
    before = _inode(log_path)
    inotify = Inotify()
    try:
        inotify.watch(log_path.parent, IN_MOVED_TO | IN_CREATE)
        with trio.move_on_after(_REOPEN_SECONDS):
            await _send(bundle, _REOPEN)
            while _inode(log_path) in (None, before):
                await inotify.read()
            return
    finally:
        inotify.close()
    raise DeadlineExceeded(
        f"the container's monitor did not reopen {log_path} within {_REOPEN_SECONDS:g} s; it does not react"
    )


def _inode(path: Path) -> tuple[int, int] | None:
    """Identify a file; the time tells a new file with a reused inode number apart."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_ctime_ns


async def _send(bundle: Path, line: str) -> None:
    path = bundle / CONTROL_FIFO
    try:
        # Without O_NONBLOCK the open would wait for a reader that may never come back.
        fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ENOENT):
            raise FailedPrecondition(
                "the container's monitor is gone: the container is not running"
            ) from None
        raise Unavailable(f"cannot open {path}: {error.strerror}") from error
    try:
        await _wait_taken(fd)
        os.write(fd, line.encode())
        await _wait_taken(fd)
    except BlockingIOError:
        raise Unavailable("the container's monitor does not read its control fifo") from None
    except BrokenPipeError:
        raise FailedPrecondition("the container's monitor died") from None
    finally:
        os.close(fd)


async def _wait_taken(fd: int) -> None:
    """Wait until the fifo is empty, for a bounded time."""
    waiting = array.array("i", [0])
    with trio.move_on_after(_TAKEN_SECONDS):
        while True:
            fcntl.ioctl(fd, termios.FIONREAD, waiting)
            if not waiting[0]:
                break
            await trio.sleep(_TAKEN_STEP_SECONDS)
    await trio.lowlevel.checkpoint()
