"""Seccomp user notifications (seccomp_unotify(2)), and the program that holds their descriptors.

A filter with SCMP_ACT_NOTIFY asks whoever holds its descriptor about each such system call, and answers
ENOSYS once nobody holds it any more. So a small process of its own holds it, one per container: it
outlives the daemon, and ends with the last process of the container. The daemon starts it with `spawn`;
the runtime connects to its socket and hands the descriptor over (runtime-spec config-linux.md,
`listenerPath`). What was called stands in a report file, so that there is nothing to attach to again.

This file is that program too: it imports the standard library only, and not even ctypes.
"""

from __future__ import annotations

import array
import errno
import fcntl
import json
import os
import select
import socket
import struct
import sys
import time
from contextlib import suppress

_NOTIFICATION = struct.Struct("=QIIiIQ6Q")  # struct seccomp_notif: id, pid, flags, seccomp_data
_ANSWER = struct.Struct("=QqiI")  # struct seccomp_notif_resp: id, val, error, flags
_CONTINUE = 1  # SECCOMP_USER_NOTIF_FLAG_CONTINUE, Linux 5.5
_SYNC_WAKE_UP = 1  # SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP, Linux 6.6
_REPORT_SECONDS = 1.0  # how old the counts in the report may be
_READ_BYTES = 65536
_MOST_FDS = 16


def _request(number: int, size: int, *, both: bool) -> int:
    """An ioctl request of type '!' (asm-generic/ioctl.h; POWER has other direction bits)."""
    if os.uname().machine.startswith("ppc"):
        direction, shift = (6 if both else 4), 29
    else:
        direction, shift = (3 if both else 1), 30
    return direction << shift | size << 16 | ord("!") << 8 | number


_RECEIVE = _request(0, _NOTIFICATION.size, both=True)
_SEND = _request(1, _ANSWER.size, both=True)
_ID_VALID = _request(2, 8, both=False)
_SET_FLAGS = _request(4, 8, both=False)


def is_notification_fd(fd: int) -> bool:
    """Tell whether the descriptor is one of a filter: only those know that an id is unknown."""
    try:
        fcntl.ioctl(fd, _ID_VALID, bytes(8))
    except OSError as error:
        return error.errno == errno.ENOENT
    return True


class Holder:
    """Answers the notifications of one container, until all its processes have ended.

    Args:
        listener: the socket that the runtime connects to.
        report: path of the file with what was called: {"ARCH:NUMBER": how often}.
        errnos: answers by "ARCH:NUMBER", "" for all others; None = let every call go on.
    """

    def __init__(self, listener: socket.socket, report: str, errnos: dict[str, int] | None) -> None:
        self._listener, self._report, self._errnos = listener, report, errnos
        self._calls: dict[tuple[int, int], int] = {}
        self._connections: dict[int, socket.socket] = {}
        self._filters: set[int] = set()
        self._poll = select.poll()
        self._poll.register(listener.fileno(), select.POLLIN)
        self._dirty = False
        self._written = 0.0

    def run(self) -> None:
        """Serve until the last filter is unused."""
        held = False
        while not held or self._filters:
            ready = self._poll.poll(_REPORT_SECONDS * 1000 if self._dirty else None)
            for fd, events in ready:
                if fd in self._filters:
                    self._notified(fd, events)
                elif fd in self._connections:
                    self._received(self._connections[fd])
                else:
                    connection, _ = self._listener.accept()
                    self._connections[connection.fileno()] = connection
                    self._poll.register(connection.fileno(), select.POLLIN)
            held = held or bool(self._filters)
            if self._dirty and time.monotonic() - self._written >= _REPORT_SECONDS:
                self._publish()
        self._publish()

    def _received(self, connection: socket.socket) -> None:
        """Take the descriptors that come with a runtime's message; the message itself says nothing new."""
        try:
            data, ancillary, _, _ = connection.recvmsg(_READ_BYTES, socket.CMSG_SPACE(_MOST_FDS * 4))
        except OSError:
            data, ancillary = b"", []
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors = array.array("i")
                descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
                for fd in descriptors:
                    self._take(fd)
        if not data:
            self._poll.unregister(connection.fileno())
            del self._connections[connection.fileno()]
            connection.close()

    def _take(self, fd: int) -> None:
        if not is_notification_fd(fd):
            os.close(fd)
            return
        os.set_inheritable(fd, False)
        with suppress(OSError):  # an older kernel: only slower
            fcntl.ioctl(fd, _SET_FLAGS, _SYNC_WAKE_UP)  # asker and answerer take turns on one CPU
        self._filters.add(fd)
        self._poll.register(fd, select.POLLIN)

    def _notified(self, fd: int, events: int) -> None:
        if not events & select.POLLIN:  # POLLHUP: no process has this filter any more
            self._poll.unregister(fd)
            self._filters.remove(fd)
            os.close(fd)
            return
        buffer = bytearray(_NOTIFICATION.size)  # the kernel wants it zeroed
        try:
            fcntl.ioctl(fd, _RECEIVE, buffer)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):  # the process was killed meanwhile
                return
            raise
        identity, _, _, number, arch, *_ = _NOTIFICATION.unpack(buffer)
        if self._errnos is None:
            answer = _ANSWER.pack(identity, 0, 0, _CONTINUE)
        else:
            number_ = self._errnos.get(f"{arch}:{number}", self._errnos[""])
            answer = _ANSWER.pack(identity, 0, -number_, 0)
        count = self._calls.get((arch, number), 0)
        self._calls[arch, number] = count + 1
        self._dirty = True
        try:
            fcntl.ioctl(fd, _SEND, answer)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
        if count == 0:
            self._publish()

    def _publish(self) -> None:
        """Write the report in one step. It is on a tmpfs, where nothing needs a sync."""
        temporary = f"{self._report}.new"
        with suppress(OSError):  # the container matters more than the report of it
            with open(temporary, "w", encoding="ascii") as file:
                json.dump({f"{arch}:{number}": n for (arch, number), n in self._calls.items()}, file)
            os.rename(temporary, self._report)
        self._dirty = False
        self._written = time.monotonic()


def main(path: str, report: str, errnos: str) -> None:
    """Listen at `path`, tell it, and serve when told to. A daemon that died meanwhile tells nothing."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        os.chmod(path, 0o600)
        listener.listen(16)
        try:
            os.write(1, b"listening\n")
            told = os.read(0, 1)
        except OSError:
            told = b""
        if not told:
            os.unlink(path)
            return
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.close(null)
        Holder(listener, report, json.loads(errnos)).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
