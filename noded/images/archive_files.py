"""The files of an image archive, whether it is a directory, a tar or a compressed tar. Blocking."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Protocol

import trio

from noded.errors import DataLoss, InvalidArgument, NotFound
from noded.host import beneath, libc
from noded.images.unpack.compression import LayerStream
from noded.images.unpack.faults import LayerFault
from noded.images.unpack.limits import UnpackLimits

COMPRESSED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd")  # gzip, zstd


class ArchiveFiles(Protocol):
    """Named files. Names are relative, with / between components."""

    def has(self, name: str) -> bool: ...

    def open(self, name: str) -> IO[bytes]:
        """Raises: NotFound naming the file and the archive."""

    def read(self, name: str, limit_bytes: int) -> bytes:
        """The whole of a small file. Raises: NotFound; InvalidArgument when it is too long."""


class _Files:
    def __init__(self, path: Path) -> None:
        self._path = path

    def open(self, name: str) -> IO[bytes]:
        raise NotImplementedError

    def read(self, name: str, limit_bytes: int) -> bytes:
        with self.open(name) as file:
            data = file.read(limit_bytes + 1)
        if len(data) > limit_bytes:
            raise InvalidArgument(f"{self._path}: {name} is longer than {limit_bytes} bytes")
        return data

    def _missing(self, name: str) -> NotFound:
        return NotFound(f"archive {self._path} has no file {name}")


class DirectoryFiles(_Files):
    """A directory; links inside it are followed, but never out of it."""

    def has(self, name: str) -> bool:
        try:
            self.open(name).close()
        except NotFound:
            return False
        return True

    def open(self, name: str) -> IO[bytes]:
        try:
            fd = beneath.open_beneath(self._path, name, os.O_RDONLY | os.O_NONBLOCK)
        except NotFound:
            raise self._missing(name) from None
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise self._missing(name)
        return open(fd, "rb", buffering=0)


class TarFiles(_Files):
    """A plain tar. Nothing is extracted: members are read in place."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        super().__init__(path)
        try:
            self._tar = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 - closed with its file
            self._members = {os.path.normpath(member.name): member for member in self._tar}
        except (tarfile.TarError, ValueError, OverflowError) as error:
            raise DataLoss(f"{path} is not a readable tar: {error}") from None

    def has(self, name: str) -> bool:
        return os.path.normpath(name) in self._members

    def open(self, name: str) -> IO[bytes]:
        member = self._members.get(os.path.normpath(name))
        try:
            # Old `docker save` has links between the layers of one archive; tarfile follows them.
            file = self._tar.extractfile(member) if member else None
        except (tarfile.TarError, KeyError, RecursionError):
            file = None
        if file is None:
            raise self._missing(name)
        return file


@contextlib.contextmanager
def open_archive(path: Path, scratch: Path) -> Iterator[ArchiveFiles]:
    """Open a directory or (compressed) tar.

    Args:
        scratch: where a compressed tar is expanded meanwhile.

    Raises: NotFound, DataLoss...
    """
    with contextlib.ExitStack() as stack:
        try:
            if path.is_dir():
                yield DirectoryFiles(path)
                return
            file: IO[bytes] = stack.enter_context(path.open("rb"))
        except OSError as error:
            raise libc.os_error(error, f"cannot open archive {path}") from None
        if file.read(4).startswith(COMPRESSED):
            expanded = stack.enter_context(scratch_file(scratch))
            expand(file.fileno(), expanded, str(path))
            file = expanded
        file.seek(0)
        yield TarFiles(path, file)


@contextlib.contextmanager
def scratch_file(directory: Path) -> Iterator[IO[bytes]]:
    """An unnamed-when-done file; locked, so that a collection leaves it alone."""
    with tempfile.NamedTemporaryFile(dir=directory, prefix="scratch-") as file:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX)
        yield file


def expand(source_fd: int, target: IO[bytes], what: str) -> str:
    """Write the uncompressed form of a file, from its start; returns its digest. Reads plain files too.

    Raises: DataLoss naming `what`.
    """
    os.lseek(source_fd, 0, os.SEEK_SET)
    stream = LayerStream(source_fd, UnpackLimits())
    try:
        while chunk := stream.chunk():
            trio.from_thread.check_cancelled()
            target.write(chunk)
    except LayerFault as fault:
        raise DataLoss(f"{what}: {fault.message}") from None
    target.flush()
    return stream.diff_id
