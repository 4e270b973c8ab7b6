"""File events (inotify(7)) for trio."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import trio

from noded.errors import ResourceExhausted
from noded.host import libc

IN_ACCESS = 0x1
IN_MODIFY = 0x2
IN_ATTRIB = 0x4
IN_CLOSE_WRITE = 0x8
IN_OPEN = 0x20
IN_MOVED_FROM = 0x40
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_DELETE = 0x200
IN_DELETE_SELF = 0x400
IN_MOVE_SELF = 0x800
IN_UNMOUNT = 0x2000
IN_Q_OVERFLOW = 0x4000  # events were lost: look at everything again
IN_IGNORED = 0x8000  # the watch is gone, by `unwatch` or because its file is
IN_ONLYDIR = 0x1000000
IN_DONT_FOLLOW = 0x2000000
IN_MASK_ADD = 0x20000000
IN_ISDIR = 0x40000000
IN_ONESHOT = 0x80000000

_HEADER = struct.Struct("iIII")
_READ_BYTES = 65536


class Event(NamedTuple):
    """One event. `wd` is -1 for IN_Q_OVERFLOW; `name` is "" when the watched path itself is meant."""

    wd: int
    mask: int
    name: str


def parse_events(data: bytes) -> list[Event]:
    """Parse what read(2) returns.

    Raises: ValueError when an event is cut.
    """
    events = []
    offset = 0
    while offset < len(data):
        if offset + _HEADER.size > len(data):
            raise ValueError("an inotify event is cut in its header")
        wd, mask, _, length = _HEADER.unpack_from(data, offset)
        offset += _HEADER.size
        if offset + length > len(data):
            raise ValueError("an inotify event is cut in its name")
        name = data[offset : offset + length].partition(b"\0")[0]
        offset += length
        events.append(Event(wd, mask, os.fsdecode(name)))
    return events


class Inotify:
    """An inotify instance; owns one file descriptor until `close`."""

    def __init__(self) -> None:
        try:
            self._fd = libc.call("inotify_init1", ctypes.c_int(os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError as error:
            if error.errno == errno.EMFILE:
                raise ResourceExhausted(
                    "no inotify instance left: raise fs.inotify.max_user_instances or the open files limit"
                ) from None
            raise libc.os_error(error, "cannot use inotify") from None

    def fileno(self) -> int:
        """Return the descriptor, readable when events are waiting."""
        return self._fd

    def watch(self, path: Path, mask: int) -> int:
        """Watch a path; return the watch descriptor that events carry. The same path gives the same.

        Raises: NotFound; ResourceExhausted naming the limit to raise.
        """
        try:
            return libc.call(
                "inotify_add_watch", ctypes.c_int(self._fd), os.fsencode(path), ctypes.c_uint32(mask)
            )
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise ResourceExhausted(
                    f"cannot watch {path}: no inotify watch left, raise fs.inotify.max_user_watches"
                ) from None
            raise libc.os_error(error, f"cannot watch {path}") from None

    def unwatch(self, wd: int) -> None:
        """End a watch; one that ended by itself is success. IN_IGNORED follows."""
        try:
            libc.call("inotify_rm_watch", ctypes.c_int(self._fd), ctypes.c_int(wd))
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise libc.os_error(error, "cannot end an inotify watch") from None

    async def read(self) -> list[Event]:
        """Wait for events; at least one is returned. One task at a time.

        Raises: trio.ClosedResourceError when `close` is called meanwhile. Cancellation: loses nothing.
        """
        while True:
            await trio.lowlevel.checkpoint()
            if events := self.read_nowait():
                return events
            await trio.lowlevel.wait_readable(self._fd)

    def read_nowait(self) -> list[Event]:
        """Return the events that are waiting, perhaps none.

        Raises: trio.ClosedResourceError after `close`.
        """
        if self._fd < 0:
            raise trio.ClosedResourceError
        try:
            return parse_events(os.read(self._fd, _READ_BYTES))
        except BlockingIOError:
            return []

    def close(self) -> None:
        """Close the instance; a waiting `read` ends. Idempotent."""
        if self._fd < 0:
            return
        fd, self._fd = self._fd, -1
        with suppress(RuntimeError):  # outside trio nobody can be waiting
            trio.lowlevel.notify_closing(fd)
        os.close(fd)
