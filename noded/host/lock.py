"""One daemon per directory. The first thing that a start does, so it imports next to nothing."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from types import TracebackType

from noded.errors import FailedPrecondition, NodedError


class Lock:
    """An exclusive lock that ends with this process, however it ends. See `lock`."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def close(self) -> None:
        """Give the lock up. Idempotent. The file stays: removing it would race with the next owner."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def __enter__(self) -> Lock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def lock(path: Path) -> Lock:
    """Take an exclusive lock (flock(2)) so that two daemons never share a directory.

    A child forked without exec holds the lock too: it must close its inherited descriptors.

    Raises: FailedPrecondition naming the process that has it.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise _os_error(error, f"cannot open the lock {path}") from None
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
            raise FailedPrecondition(
                f"{path.parent} is in use by noded process {holder}: stop it, or use another directory"
            ) from None
        try:
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:  # a full disk must not keep a daemon from being started
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
    except OSError as error:
        os.close(fd)
        raise _os_error(error, f"cannot lock {path}") from None
    except BaseException:
        os.close(fd)
        raise
    return Lock(fd)


def _os_error(error: OSError, action: str) -> NodedError:
    from noded.host import libc

    return libc.os_error(error, action)
