"""Blobs by digest.

    content/
      blobs/sha256/HEX    complete, verified, durable; mode 0600
      ingest/sha256-HEX   being written; locked (flock) by its writer, may be resumed

A name in blobs/ is a promise: the file got it by fsync, rename and fsync of the directory after its
digest was verified. All methods block and may be called from any worker thread.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from noded.errors import Aborted, DataLoss, InvalidArgument, NodedError, NotFound
from noded.host import files, libc
from noded.images.filesystem import BLOCK_BYTES
from noded.images.unpack.writeback import WRITEBACK_BYTES, start_writeback
from noded.wire import digest as digests

_READ_BYTES = 1 << 20


class ContentStore:
    """The content directory of one noded instance."""

    def __init__(self, directory: Path) -> None:
        self._blobs = directory / "blobs"
        self._ingest = directory / "ingest"
        for algorithm in digests.HEX_LENGTH:
            (self._blobs / algorithm).mkdir(mode=0o700, parents=True, exist_ok=True)
        self._ingest.mkdir(mode=0o700, exist_ok=True)

    @property
    def scratch(self) -> Path:
        """A directory on the same file system for temporary files; emptied at the next start."""
        return self._ingest

    def path(self, digest: str) -> Path:
        """Where the blob is, whether or not it exists.

        Raises: InvalidArgument for a malformed digest; so nothing but a digest becomes a path.
        """
        digests.parse(digest)
        return self._blobs / digests.algorithm(digest) / digests.encoded(digest)

    def has(self, digest: str) -> bool:
        return self.path(digest).is_file()

    def size(self, digest: str) -> int:
        """Length in bytes.

        Raises: NotFound.
        """
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            raise _missing(digest) from None

    def open(self, digest: str) -> int:
        """A read-only file descriptor at the start of the blob.

        Raises: NotFound.
        """
        try:
            return os.open(self.path(digest), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            raise _missing(digest) from None

    def read(self, digest: str, limit_bytes: int) -> bytes:
        """The whole of a small blob (a manifest or configuration), verified again.

        Raises: NotFound; InvalidArgument when longer than `limit_bytes`; DataLoss when it was damaged.
        """
        with open(self.open(digest), "rb") as blob:
            data = blob.read(limit_bytes + 1)
        if len(data) > limit_bytes:
            raise InvalidArgument(
                f"blob {digest} is longer than the {limit_bytes} bytes that are allowed here"
            )
        digests.verify(data, digest, f"stored blob {digest}")
        return data

    def verify(self, digest: str) -> None:
        """Read a blob of any size and compare it with its digest.

        Raises: NotFound, DataLoss.
        """
        hasher = digests.hasher(digest)
        with open(self.open(digest), "rb", buffering=0) as blob:
            while data := blob.read(_READ_BYTES):
                hasher.update(data)
        if hasher.hexdigest() != digests.encoded(digest):
            raise DataLoss(f"stored blob {digest} is damaged: it has digest {hasher.hexdigest()}")

    def put(self, data: bytes) -> str:
        """Store a small blob; returns its digest."""
        digest = digests.of(data)
        if self.has(digest):
            return digest
        writer = self.begin(digest, len(data))
        try:
            if writer.offset:
                writer.restart()
            writer.write(data)
            writer.commit()
        finally:
            writer.abort()
        return digest

    def begin(self, digest: str, size_bytes: int | None) -> BlobWriter:
        """Start or resume writing a blob. The caller ends it by `commit`, `abort` or `keep`.

        Args:
            size_bytes: the expected length, None if unknown.

        Raises: Aborted when another writer is at work on this digest; by errno (ResourceExhausted...).
        """
        final = self.path(digest)
        partial = self._ingest / digest.replace(":", "-")
        what = f"cannot write blob {digest}"
        try:
            return BlobWriter(_lock(partial, digest), partial, final, digest, size_bytes)
        except OSError as error:
            raise libc.os_error(error, what) from None

    def delete(self, digest: str) -> None:
        """Remove a blob; a missing one is success."""
        self.path(digest).unlink(missing_ok=True)

    def blobs(self) -> Iterator[tuple[str, int]]:
        """(digest, bytes on disk) of every complete blob."""
        for algorithm, length in digests.HEX_LENGTH.items():
            with os.scandir(self._blobs / algorithm) as listing:
                for item in listing:
                    with contextlib.suppress(FileNotFoundError):
                        if len(item.name) == length:
                            yield (
                                f"{algorithm}:{item.name}",
                                item.stat(follow_symlinks=False).st_blocks * BLOCK_BYTES,
                            )

    def usage(self) -> tuple[int, int]:
        """(bytes, inodes) on disk of all blobs, complete or not."""
        sizes = [size for _, size in self.blobs()]
        with os.scandir(self._ingest) as listing:
            for item in listing:
                with contextlib.suppress(FileNotFoundError):
                    sizes.append(item.stat(follow_symlinks=False).st_blocks * BLOCK_BYTES)
        return sum(sizes), len(sizes)

    def discard_partial(self, keep: Collection[str] = ()) -> int:
        """Delete what ended writers left; returns the bytes freed.

        What a living writer holds stays, and so do the partial blobs of the digests in `keep`.
        """
        kept = {digest.replace(":", "-") for digest in keep}
        with os.scandir(self._ingest) as listing:
            names = [item.name for item in listing if item.name not in kept]
        return sum(_discard(self._ingest / name) for name in names)


class BlobWriter:
    """One blob being written. Methods may be called from any thread, one at a time.

    `offset` is the number of bytes already there: a resumed download asks for the rest.
    """

    def __init__(self, fd: int, partial: Path, final: Path, digest: str, size_bytes: int | None) -> None:
        self._fd = fd
        self._partial = partial
        self._final = final
        self._digest = digest
        self._size = size_bytes
        self._hasher: Any = digests.hasher(digest)
        self.offset = 0
        self._written_back = 0
        try:
            self._recover()
        except BaseException:
            self._close()
            raise

    def write(self, chunk: bytes | memoryview) -> None:
        """Append.

        Raises: DataLoss when the blob grows beyond its announced size; ResourceExhausted on a full disk.
        """
        if self._size is not None and self.offset + len(chunk) > self._size:
            raise DataLoss(f"blob {self._digest} is longer than the {self._size} bytes that were announced")
        rest = memoryview(chunk)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as error:
            raise self._failed(error) from None
        self._hasher.update(chunk)
        self.offset += len(chunk)
        if self.offset - self._written_back >= WRITEBACK_BYTES:
            start_writeback(self._fd)
            self._written_back = self.offset

    def restart(self) -> None:
        """Drop all bytes: the server does not resume, or sent something else."""
        os.ftruncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)
        self._hasher = digests.hasher(self._digest)
        self.offset = self._written_back = 0

    def verify(self) -> None:
        """Raises: DataLoss on a wrong length or digest; the partial file is then deleted."""
        if self._size is not None and self.offset != self._size:
            self.abort()
            raise DataLoss(f"blob {self._digest} is truncated: {self.offset} of {self._size} bytes arrived")
        if self._hasher.hexdigest() != digests.encoded(self._digest):
            self.abort()
            raise DataLoss(
                f"blob {self._digest} is damaged: what arrived has digest {self._hasher.hexdigest()}"
            )

    def commit(self) -> None:
        """Verify, make durable and publish.

        Raises: as `verify`.
        """
        self.verify()
        try:
            os.fsync(self._fd)
            self._partial.rename(self._final)
            files.sync_directory(self._final.parent)
        except OSError as error:
            raise self._failed(error) from None
        self._close()

    def abort(self) -> None:
        """End and delete what was written. After `commit` or `keep` it does nothing."""
        if self._fd >= 0:
            self._partial.unlink(missing_ok=True)
            self._close()

    def keep(self) -> None:
        """End, but leave the bytes for a later `begin` of the same digest."""
        self._close()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _recover(self) -> None:
        while data := os.read(self._fd, _READ_BYTES):
            self._hasher.update(data)
            self.offset += len(data)
        if self._size is not None and self.offset > self._size:
            self.restart()

    def _failed(self, error: OSError) -> NodedError:
        failure = libc.os_error(error, f"cannot write blob {self._digest}")
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            failure.args = (f"free space on the file system of {self._partial.parent}: {failure}",)
        return failure


def _lock(path: Path, digest: str) -> int:
    """Open and lock an ingest file.

    The writer before us may have published or deleted the file between our open and our lock: then
    what we hold is not the ingest file any more, and writing to it would change a published blob.
    """
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False)):
                return fd
        except BlockingIOError:
            os.close(fd)
            raise Aborted(f"blob {digest} is being written by another task; wait for it") from None
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _discard(path: Path) -> int:
    """Delete a partial file unless its writer lives; returns the bytes freed."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise libc.os_error(error, f"cannot open {path}") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        freed = os.fstat(fd).st_blocks * BLOCK_BYTES
        files.remove_tree(path)
        return freed
    except BlockingIOError:
        return 0
    finally:
        os.close(fd)


def _missing(digest: str) -> NotFound:
    return NotFound(f"blob {digest} is not in the local store")
