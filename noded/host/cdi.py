"""The node's CDI directories: read when a container asks for a device, anew when a file has changed."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from noded.errors import InvalidArgument
from noded.spec.cdi.catalogue import Catalogue, CdiFile
from noded.spec.cdi.document import CdiSpec, parse_document

_SUFFIXES = (".json", ".yaml")
_LIMIT_BYTES = 4 << 20  # a generated file of a node with many partitioned GPUs has some 100 KiB

_Stamp = tuple[int, ...]


class CdiDirectories:
    """Files of the spec directories, parsed once per change.

    Not watched: a device plugin writes its file just before the container that needs it, and a read at
    that moment cannot be late. Use from one thread at a time.

    Args:
        directories: in order of rising priority; one that does not exist is empty.
    """

    def __init__(self, directories: Sequence[Path]) -> None:
        self._directories = tuple(directories)
        self._parsed: dict[str, tuple[_Stamp, CdiFile]] = {}
        self._catalogue: Catalogue | None = None

    def read(self) -> Catalogue:
        """Return what the files say now. Blocks. A file that cannot be used is one of its problems."""
        found: dict[str, tuple[_Stamp, CdiFile]] = {}
        for priority, directory in enumerate(self._directories):
            for path in _names(directory):
                stamp = _stamp(path)
                known = self._parsed.get(path)
                if known is None or known[0] != stamp or not stamp:
                    known = (stamp, _file(path, priority))
                found[path] = known
        if self._catalogue is None or found != self._parsed:
            self._catalogue = Catalogue(file for _, file in found.values())
        self._parsed = found
        return self._catalogue


def _names(directory: Path) -> list[str]:
    try:
        names = os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise InvalidArgument(f"cdi_spec_dirs: cannot read {directory}: {error.strerror}") from None
    return [f"{directory}/{name}" for name in sorted(names) if name.endswith(_SUFFIXES)]


def _stamp(path: str) -> _Stamp:
    """What changes when a file does, even one rewritten in place within a tick of its mtime; () = gone."""
    try:
        info = os.stat(path)
    except OSError:
        return ()
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns


def _file(path: str, priority: int) -> CdiFile:
    try:
        return CdiFile(path, priority, _parse(path))
    except InvalidArgument as error:
        return CdiFile(path, priority, None, str(error))
    except OSError as error:
        return CdiFile(path, priority, None, error.strerror or str(error))


def _parse(path: str) -> CdiSpec:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a fifo must not hold the create up
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise InvalidArgument("it is no regular file")
        data = file.read(_LIMIT_BYTES + 1)
    if len(data) > _LIMIT_BYTES:
        raise InvalidArgument(f"it is larger than {_LIMIT_BYTES} bytes")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise InvalidArgument("it is not UTF-8") from None
    return parse_document(text)
