"""A copy of a download, written into a pipe while it goes to its file.

The download must not suffer from its copy: when the reader is gone the copy stops, the file does
not. A download that starts over at another endpoint sends the same bytes again; they are skipped
here, since the reader has them.
"""

from __future__ import annotations

import fcntl
import os
from typing import Final

PIPE_BYTES: Final = 1 << 20  # the most an unprivileged process may set; evens out reader and writer


class Tee:
    """The write end of a pipe. `write` and `seek` in the download's thread, `close` after it ended."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._position = 0  # of the next byte that the download brings
        self._sent = 0
        self.spoiled = False  # what was sent is not the blob: the reader's result is worth nothing
        self._reader_gone = False
        try:
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        except OSError:  # the user's pipe quota is used up: the default size works too
            return

    def seek(self, offset: int) -> None:
        """The download goes on at `offset`."""
        self._position = offset
        if offset > self._sent:
            self.spoiled = True  # those bytes were never sent

    def write(self, chunk: bytes) -> None:
        """Send what the reader does not have yet. Blocks while the pipe is full."""
        start = self._position
        self._position += len(chunk)
        if self.spoiled or self._reader_gone or self._position <= self._sent:
            return
        rest = memoryview(chunk)[self._sent - start :]
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except BrokenPipeError:
            self._reader_gone = True
        self._sent = self._position

    def close(self) -> None:
        """The reader sees the end. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
