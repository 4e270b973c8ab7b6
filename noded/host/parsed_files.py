"""Small configuration files of the node's directories: parsed once, and again when they change.

Not watched: whoever writes such a file does so before it starts the container that needs it, and a
look at that moment cannot be late.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from noded.errors import FailedPrecondition, InvalidArgument

T = TypeVar("T")

_LIMIT_BYTES = 4 << 20  # a generated CDI file of a node with many partitioned GPUs has some 100 KiB

_SETTLED_NS = 2_000_000_000  # an entry made within the tick of an earlier one leaves the same mtime

_Stamp = tuple[int, ...]


class ParsedFile(NamedTuple, Generic[T]):
    """What a file says, or why it says nothing.

    Args:
        priority: position of its directory among those given.
    """

    path: str
    priority: int
    value: T | None
    problem: str = ""


class ParsedFiles(Generic[T]):
    """The files of some directories. Use from one thread at a time.

    Args:
        directories: in order of rising priority; one that does not exist is empty.
        setting: configuration key that names them, for messages.
        suffixes: of the names that count.
        parse: text to value, raising InvalidArgument.
    """

    def __init__(
        self, directories: Sequence[Path], setting: str, suffixes: tuple[str, ...], parse: Callable[[str], T]
    ) -> None:
        self._directories = tuple(directories)
        self._setting = setting
        self._suffixes = suffixes
        self._parse = parse
        self._known: dict[str, tuple[_Stamp, ParsedFile[T]]] = {}
        self._answer: tuple[ParsedFile[T], ...] = ()
        self._empty: tuple[_Stamp, ...] | None = None

    def still_empty(self) -> bool:
        """Whether `read` would find no file, as it did the last time; False when that is not certain.

        One stat(2) of each directory, so that a feature which nobody uses costs no thread.
        """
        return self._empty is not None and self._stamps() == self._empty

    def read(self) -> tuple[ParsedFile[T], ...]:
        """The files as they are now, by directory and name. Blocks.

        Returns: the same object as before when nothing has changed.
        Raises: FailedPrecondition when a directory cannot be listed.
        """
        found: dict[str, tuple[_Stamp, ParsedFile[T]]] = {}
        now, stamps = time.time_ns(), self._stamps()
        for priority, directory in enumerate(self._directories):
            for path in self._names(directory):
                stamp = _stamp(path)
                known = self._known.get(path)
                if known is None or known[0] != stamp or not stamp:
                    known = (stamp, self._file(path, priority))
                found[path] = known
        if found != self._known:
            self._answer = tuple(file for _, file in found.values())
        self._known = found
        settled = all(not stamp or now - max(stamp[-2:]) > _SETTLED_NS for stamp in stamps)
        self._empty = stamps if settled and not found else None
        return self._answer

    def _stamps(self) -> tuple[_Stamp, ...]:
        return tuple(_stamp(str(directory)) for directory in self._directories)

    def _names(self, directory: Path) -> list[str]:
        try:
            names = os.listdir(directory)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise FailedPrecondition(f"{self._setting}: cannot read {directory}: {error.strerror}") from None
        return [f"{directory}/{name}" for name in sorted(names) if name.endswith(self._suffixes)]

    def _file(self, path: str, priority: int) -> ParsedFile[T]:
        try:
            return ParsedFile(path, priority, self._parse(_text(path)))
        except InvalidArgument as error:
            return ParsedFile(path, priority, None, str(error))
        except OSError as error:
            return ParsedFile(path, priority, None, error.strerror or str(error))


def _stamp(path: str) -> _Stamp:
    """What changes when a file does, even one rewritten in place within a tick of its mtime; () = gone."""
    try:
        info = os.stat(path)
    except OSError:
        return ()
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns


def _text(path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a fifo must not hold a create up
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise InvalidArgument("it is no regular file")
        data = file.read(_LIMIT_BYTES + 1)
    if len(data) > _LIMIT_BYTES:
        raise InvalidArgument(f"it is larger than {_LIMIT_BYTES} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InvalidArgument("it is not UTF-8") from None
