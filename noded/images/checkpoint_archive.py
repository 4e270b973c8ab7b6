"""Checkpoint archives: tars with the files of `noded.model.checkpoint`. Blocking.

An archive to restore from is hostile input. One file is read out of it by the bounded reader of layers,
all of it is extracted by the confined process that extracts layers (`noded.images.unpack`).
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import IO

import trio

from noded.errors import DataLoss, InvalidArgument, NotFound
from noded.host import files, libc
from noded.images.interruptible import InterruptibleReader
from noded.images.unpack.faults import LayerFault
from noded.images.unpack.limits import UnpackLimits

MEMBER_LIMIT_BYTES = 8 << 20  # of a JSON file that is read into memory


def open_archive_file(path: Path) -> int:
    """Open an archive for reading; the caller closes the descriptor.

    Raises: NotFound; InvalidArgument when it is no regular file.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise libc.os_error(error, f"cannot open the checkpoint archive {path}") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise InvalidArgument(f"the checkpoint archive {path} is no regular file")
    return fd


def read_member(path: Path, name: str) -> bytes:
    """Return a small file of an archive, which may be compressed.

    Raises: NotFound, InvalidArgument, DataLoss naming the archive.
    Cancellation: between two members, from a trio thread.
    """
    # The readers of layers are the unpacker's; the daemon needs them for this alone.
    from noded.images.unpack.compression import LayerStream
    from noded.images.unpack.entry import REGULAR
    from noded.images.unpack.extract import clean
    from noded.images.unpack.stream import ByteStream
    from noded.images.unpack.tar import TarReader

    wanted = name.encode()
    fd = open_archive_file(path)
    try:
        stream = ByteStream(LayerStream(fd, UnpackLimits()).chunk)
        for entry in TarReader(stream, UnpackLimits()):
            trio.from_thread.check_cancelled()
            if entry.kind == REGULAR and entry.segments is None and clean(entry.name) == wanted:
                if entry.size > MEMBER_LIMIT_BYTES:
                    raise InvalidArgument(f"{path}: {name} is longer than {MEMBER_LIMIT_BYTES} bytes")
                return stream.read(entry.size)
            stream.skip(entry.size)
    except LayerFault as fault:
        raise DataLoss(f"{path} is not a readable checkpoint archive: {fault.message}") from None
    finally:
        os.close(fd)
    raise NotFound(f"{path} is no checkpoint archive: it has no {name}")


def check_images(directory: Path) -> None:
    """Refuse what CRIU must not be given: anything but plain files, it would follow links.

    Raises: InvalidArgument, NotFound.
    """
    try:
        with os.scandir(directory) as listing:
            for item in listing:
                if not item.is_file(follow_symlinks=False):
                    raise InvalidArgument(f"the checkpoint's {directory.name}/{item.name} is no regular file")
        if not stat.S_ISDIR(directory.lstat().st_mode):
            raise InvalidArgument(f"the checkpoint's {directory.name} is no directory")
    except OSError as error:
        raise libc.os_error(error, f"the checkpoint has no readable {directory.name}") from None
    if not (directory / "inventory.img").exists():
        raise NotFound(f"the checkpoint is not complete: it has no {directory.name}/inventory.img")


def temporary_of(target: Path, container_id: str) -> Path:
    """What `write_archive` may leave in the directory of `target` when it is killed."""
    return target.with_name(f".checkpoint-{container_id}{files.TEMPORARY_SUFFIX}")


def write_archive(source: Path, target: Path, temporary: Path) -> None:
    """Make an archive of the files in `source`, readable for root only; an archive that is there is replaced.

    What is needed first, the small files, comes first.

    Args:
        temporary: beside `target`, where the archive may be until it is complete; what is there goes.

    Raises: NotFound, ResourceExhausted... naming `target`; nothing is left then.
    Cancellation: until all is written, from a trio thread.
    """
    try:
        directory = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with suppress(FileNotFoundError):
                os.unlink(temporary.name, dir_fd=directory)
            fd, named = _create(directory, temporary.name)
            try:
                with open(fd, "wb") as file:
                    _write_members(file, source)
                    if not named:
                        # /proc/self/fd leads to the file only where the link is followed: linkat(2).
                        name = f"/proc/self/fd/{fd}"
                        os.link(name, temporary.name, src_dir_fd=directory, dst_dir_fd=directory)
                os.rename(temporary.name, target.name, src_dir_fd=directory, dst_dir_fd=directory)
            except BaseException:
                with suppress(OSError):
                    os.unlink(temporary.name, dir_fd=directory)
                raise
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise libc.os_error(error, f"cannot write the checkpoint archive {target}") from None


def _create(directory: int, name: str) -> tuple[int, bool]:
    """(descriptor, whether it has the name). Without one, a crash leaves no copy of the memory behind."""
    try:
        return os.open(".", os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, 0o600, dir_fd=directory), False
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            raise
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    return os.open(name, flags, 0o600, dir_fd=directory), True


def _write_members(file: IO[bytes], source: Path) -> None:
    import tarfile  # checkpoints are rare, and it takes 20 ms

    with tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(source.rglob("*"), key=lambda path: (path.name not in _FIRST, path)):
            trio.from_thread.check_cancelled()
            info = tar.gettarinfo(path, str(path.relative_to(source)))
            if info.isreg():
                with path.open("rb") as member:
                    tar.addfile(info, InterruptibleReader(member))
            else:
                tar.addfile(info)
    file.flush()
    os.fsync(file.fileno())


_FIRST = frozenset(("config.dump", "spec.dump", "deleted.files", "bind.mounts"))
