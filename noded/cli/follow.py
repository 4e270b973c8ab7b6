"""Reading a container's log file while it grows and is rotated.

kubelet rotates by renaming the file; conmon then opens a new one under the old name. The follower
watches the directory with inotify(7), so it sees writes to both files and the new name, reads the
old file to its end, and goes on with the new one.
"""

from __future__ import annotations

import ctypes
import os
import select
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

from noded.cli.log_lines import Splitter

_CHUNK_BYTES = 1 << 16
# <sys/inotify.h>: IN_MODIFY | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE
_EVENTS = 0x2 | 0x40 | 0x80 | 0x100 | 0x200


class DirectoryWatch:
    """An inotify descriptor on one directory; readable whenever something in it changed."""

    def __init__(self, directory: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self.descriptor: int = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self.descriptor < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1 failed")
        if libc.inotify_add_watch(self.descriptor, os.fsencode(directory), _EVENTS) < 0:
            number = ctypes.get_errno()
            os.close(self.descriptor)
            raise OSError(number, os.strerror(number), str(directory))

    def __enter__(self) -> DirectoryWatch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.descriptor)

    def clear(self) -> None:
        """Forget the events so far."""
        while True:
            try:
                os.read(self.descriptor, _CHUNK_BYTES)
            except BlockingIOError:
                return


class LogReader:
    """Reads whole lines of a log file from where it stopped, across rotations."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        self._path = path
        self._file = path.open("rb", buffering=0)
        self._file.seek(offset)
        self._lines = Splitter()

    def close(self) -> None:
        self._file.close()

    def read(self) -> Iterator[bytes]:
        """Yield the complete lines that can be read now, without newlines."""
        while True:
            yield from self._read_to_end()
            if not self._rotated():
                return
            # Bytes written between the last read and the rename.
            yield from self._read_to_end()
            try:
                following = self._path.open("rb", buffering=0)
            except FileNotFoundError:
                return  # renamed, the new file is not there yet: its creation is another event
            self._file.close()
            self._file = following
            self._lines = Splitter()

    def _read_to_end(self) -> Iterator[bytes]:
        while data := self._file.read(_CHUNK_BYTES):
            yield from self._lines.feed(data)

    def _rotated(self) -> bool:
        try:
            named = self._path.stat()
        except FileNotFoundError:
            return True
        opened = os.fstat(self._file.fileno())
        return (named.st_dev, named.st_ino) != (opened.st_dev, opened.st_ino)


def follow(path: Path, offset: int, exited: int | None, finished: Callable[[], bool]) -> Iterator[bytes]:
    """Yield the lines of a log file from `offset` on, as they come.

    `exited` is a pidfd of the container's process, or None when it is not known. Once it fires,
    `finished` is asked whether the container's exit is on record, which conmon reports after it
    has written the last line; then the rest of the file is yielded and this ends.
    """
    reader = LogReader(path, offset)
    try:
        with DirectoryWatch(path.parent) as watch:
            poll = select.poll()
            poll.register(watch.descriptor, select.POLLIN)
            if exited is not None:
                poll.register(exited, select.POLLIN)
            # Between death and record there is only conmon's work: ask again after a moment.
            wait_ms: int | None = None
            while True:
                yield from reader.read()
                for descriptor, _ in poll.poll(wait_ms):
                    if descriptor == watch.descriptor:
                        watch.clear()
                    else:
                        poll.unregister(descriptor)
                        wait_ms = 100
                if wait_ms is not None and finished():
                    yield from reader.read()
                    return
    finally:
        reader.close()


def tail(path: Path, count: int) -> int:
    """Return the offset at which the last `count` complete lines of a file begin."""
    with path.open("rb") as file:
        position = file.seek(0, os.SEEK_END)
        wanted = count + 1  # the newline that ends the line before them
        while position > 0:
            length = min(_CHUNK_BYTES, position)
            position -= length
            file.seek(position)
            block = file.read(length)
            found = block.count(b"\n")
            if found >= wanted:
                cut = len(block)
                for _ in range(wanted):
                    cut = block.rindex(b"\n", 0, cut)
                return position + cut + 1
            wanted -= found
    return 0
