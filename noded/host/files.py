"""Files that survive a crash, and files of containers, whose paths cannot be trusted."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

from noded.errors import DataLoss, FailedPrecondition, NotFound, ResourceExhausted
from noded.host import libc
from noded.host.beneath import open_beneath, resolve_beneath
from noded.host.trees import remove_tree

__all__ = [
    "names_in",
    "open_beneath",
    "publish",
    "read_beneath",
    "remove_temporaries",
    "remove_tree",
    "resolve_beneath",
    "sync_directory",
    "write_all",
]

_READ_CHUNK_BYTES = 65536
TEMPORARY_SUFFIX = ".noded-tmp"


def publish(path: Path, data: bytes, mode: int = 0o644, *, durable: bool) -> None:
    """Replace a file at once: readers see the old or the new content, never a part.

    The parent must exist. Concurrent writers of one path: the last rename wins.

    Args:
        durable: also survive a power loss, at the price of flushing file and directory to the disk.

    Raises: NotFound, ResourceExhausted... by errno, naming the path; nothing is left behind then. A
        crash may leave a temporary file, see `remove_temporaries`.
    """
    temporary = path.with_name(f".{os.urandom(8).hex()}{TEMPORARY_SUFFIX}")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            try:
                write_all(fd, data)
                os.fchmod(fd, mode)
                if durable:
                    os.fsync(fd)
            finally:
                os.close(fd)
            os.rename(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        if durable:
            sync_directory(path.parent)
    except OSError as error:
        raise libc.os_error(error, f"cannot write {path}") from None


def link(path: Path, target: str) -> None:
    """Make a symbolic link; one that is there already with this target is success.

    Raises: AlreadyExists... by errno, naming the path.
    """
    try:
        os.symlink(target, path)
    except OSError as error:
        if error.errno != errno.EEXIST or not os.path.islink(path) or os.readlink(path) != target:
            raise libc.os_error(error, f"cannot make the link {path}") from None


def names_in(directory: Path) -> list[str]:
    """What is in a directory, nothing where there is none. Raises: OSError."""
    try:
        return os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []


def remove_temporaries(directory: Path) -> None:
    """Remove what a crash in the middle of `publish` left in a directory. Only while nobody publishes."""
    for name in names_in(directory):
        if name.startswith(".") and name.endswith(TEMPORARY_SUFFIX):
            (directory / name).unlink(missing_ok=True)


def write_all(fd: int, data: bytes) -> None:
    """Write everything; a short write (signal, nearly full disk) goes on where it stopped."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def sync_directory(path: Path) -> None:
    """Make the names in a directory survive a power loss.

    Raises: OSError.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def read_beneath(root: Path, path: str, limit_bytes: int) -> bytes | None:
    """Read a regular file of a container's tree, links resolved as inside it.

    A fifo, device or directory in its place is no file: it is neither read nor waited for.

    Returns: None when there is no such regular file.
    Raises: ResourceExhausted when it is larger than `limit_bytes`.
    """
    try:
        # O_PATH first: opening a device, even without reading, can act on it.
        located = open_beneath(root, path)
    except (NotFound, FailedPrecondition):
        return None
    try:
        if not stat.S_ISREG(os.fstat(located).st_mode):
            return None
        fd = os.open(f"/proc/self/fd/{located}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise libc.os_error(error, f"cannot read {path} below {root}") from None
    finally:
        os.close(located)
    try:
        return _read_limited(fd, limit_bytes, f"{path} below {root}")
    finally:
        os.close(fd)


def _read_limited(fd: int, limit_bytes: int, what: str) -> bytes:
    chunks: list[bytes] = []
    left = limit_bytes + 1
    while left > 0:
        try:
            chunk = os.read(fd, min(left, _READ_CHUNK_BYTES))
        except OSError as error:
            raise DataLoss(f"cannot read {what}: {error.strerror}") from None
        if not chunk:
            return b"".join(chunks)
        chunks.append(chunk)
        left -= len(chunk)
    raise ResourceExhausted(f"{what} is larger than {limit_bytes} bytes")
