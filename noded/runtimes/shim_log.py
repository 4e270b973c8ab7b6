"""The CRI log of a task: what its output becomes, and the file it goes to.

One entry per line (kubernetes/design-proposals-archive, kubelet-cri-logging.md):

    2026-11-22T01:34:46.530327129Z stdout F text

The tag is F for a whole line, P for a part of one. Nothing is held back until a newline comes: a
prompt shows at once, and a daemon that dies has no half line in memory.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Final

import structlog

from noded.host.files import write_all
from noded.runtimes.log_size import LEAST_LOG_BYTES

_log = structlog.get_logger(__name__)

ENTRY_BYTES: Final = 16 * 1024  # of text in one entry; kubelet reads entries of this size whole
_MODE: Final = 0o640
_FLAGS: Final = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NOCTTY
_NS_PER_SECOND: Final = 1_000_000_000


def timestamp(now_ns: int) -> bytes:
    """Return RFC 3339 with nanoseconds, in UTC."""
    seconds, rest = divmod(now_ns, _NS_PER_SECOND)
    clock = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{clock}.{rest:09d}Z".encode()


def entries(stream: str, data: bytes, now_ns: int) -> bytes:
    """Return the log entries for a piece of output. Stateless: a line cut by the reader is P and F.

    Args:
        stream: "stdout" or "stderr".
    """
    head = timestamp(now_ns) + b" " + stream.encode()
    *lines, rest = data.split(b"\n")
    out: list[bytes] = []
    for line in lines:
        left = _put_parts(out, head, line)
        out += (head, b" F ", left, b"\n")
    left = _put_parts(out, head, rest)
    if left:
        out += (head, b" P ", left, b"\n")
    return b"".join(out)


def _put_parts(out: list[bytes], head: bytes, line: bytes) -> bytes:
    """Add P entries for what is too long for one entry; return the last part."""
    while len(line) > ENTRY_BYTES:
        out += (head, b" P ", line[:ENTRY_BYTES], b"\n")
        line = line[ENTRY_BYTES:]
    return line


class LogFile:
    """A log that is appended to, and reopened after a rotation. All methods block; threads may share it.

    A file that cannot be written (disk full, directory gone) loses entries, with one warning: the
    container must not stop for its log.

    Args:
        path: None = no log; what is written is dropped.
        max_bytes: size at which the log begins anew, as conmon does it: in a new file of the same name.
            0 = none. One write may be larger.
    """

    def __init__(self, path: Path | None, max_bytes: int = 0) -> None:
        self.path = path
        self._max_bytes = max(max_bytes, LEAST_LOG_BYTES) if max_bytes else 0
        self._fd = -1
        self._lock = threading.Lock()
        self._torn = False  # the file ends in the middle of an entry
        self._lost_bytes = 0

    def reopen(self) -> None:
        """Open the path anew, also for the first time; the file exists at return.

        Raises: OSError; what was open stays in use.
        """
        if self.path is None:
            return
        fd = os.open(
            self.path,
            os.O_WRONLY | os.O_APPEND | os.O_CREAT | _FLAGS,
            _MODE,
        )
        with self._lock:
            old, self._fd, self._torn = self._fd, fd, False
        if old >= 0:
            os.close(old)

    def write(self, data: bytes) -> None:
        """Append whole entries. Never raises for a full or broken disk."""
        with self._lock:
            if self._fd < 0:
                return
            try:
                self._make_room(len(data))
                end = os.fstat(self._fd).st_size if self._torn else 0
                write_all(self._fd, b"\n" + data if self._torn and end else data)
                self._torn = False
            except OSError as error:
                self._torn = True
                if not self._lost_bytes:
                    _log.warning("container_log_not_written", path=str(self.path), reason=error.strerror)
                self._lost_bytes += len(data)
                return
            if self._lost_bytes:
                _log.warning("container_log_lost", path=str(self.path), bytes=self._lost_bytes)
                self._lost_bytes = 0

    def _make_room(self, size: int) -> None:
        """Raises: OSError; what was open stays in use."""
        if not self._max_bytes or self.path is None:
            return
        there = os.fstat(self._fd).st_size
        if not there or there + size <= self._max_bytes:
            return
        fresh = self.path.with_name(f"{self.path.name}.tmp")
        fd = os.open(fresh, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC | _FLAGS, _MODE)
        try:
            os.rename(fresh, self.path)
        except OSError:
            os.close(fd)
            raise
        os.close(self._fd)
        self._fd, self._torn = fd, False

    def close(self) -> None:
        """Idempotent."""
        with self._lock:
            fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
