"""Removing directory trees that may be hostile: deep, huge, or with something mounted inside."""

from __future__ import annotations

import errno
import os
import stat
from itertools import islice
from pathlib import Path

from noded.errors import FailedPrecondition, NodedError
from noded.host import beneath, libc
from noded.host.mountinfo import is_mountpoint, mounts_below

# One descriptor and one stack frame per level. Deeper directories move up to the top first.
_DEPTH_LIMIT = 100

_BATCH = 1000  # names held in memory at once: a directory may have millions


def remove_tree(path: Path) -> None:
    """Remove a file or a directory with all it holds. Never follows a link, never crosses a mount.

    Idempotent: missing is success, and a removal that was interrupted goes on. Blocks as long as the
    tree is large: use from a worker thread.

    Raises: FailedPrecondition naming what is mounted there, before anything is removed; others by errno.
    """
    if not os.path.lexists(path):
        return
    if is_mountpoint(path):
        raise _mounted(path)
    below = mounts_below(path)
    if below:
        raise _mounted(below[0])
    try:
        parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    except OSError as error:
        raise libc.os_error(error, f"cannot remove {path}") from None
    try:
        _Removal(path, parent).run()
    finally:
        os.close(parent)


def _mounted(path: Path) -> NodedError:
    return FailedPrecondition(f"{path} is a mount point: unmount it before its tree is removed")


class _Removal:
    def __init__(self, path: Path, parent: int) -> None:
        self._path = path
        self._parent = parent
        self._moved = 0

    def run(self) -> None:
        try:
            found = os.stat(self._path.name, dir_fd=self._parent, follow_symlinks=False)
            if not stat.S_ISDIR(found.st_mode):
                os.unlink(self._path.name, dir_fd=self._parent)
                return
        except FileNotFoundError:
            return
        except OSError as error:
            raise libc.os_error(error, f"cannot remove {self._path}") from None
        while True:
            moved = self._moved
            top = self._open(self._parent, os.fsencode(self._path.name), self._path)
            if top is None:
                return
            try:
                self._empty(top, top, self._path, 1)
            finally:
                os.close(top)
            if self._moved == moved:
                break
        try:
            os.rmdir(self._path.name, dir_fd=self._parent)
        except FileNotFoundError:
            return
        except OSError as error:
            raise libc.os_error(error, f"cannot remove {self._path}") from None

    def _empty(self, directory: int, top: int, path: Path, depth: int) -> None:
        with os.scandir(directory) as listing:
            while entries := [(e.name, e.is_dir(follow_symlinks=False)) for e in islice(listing, _BATCH)]:
                for name, is_directory in entries:
                    self._remove_entry(directory, os.fsencode(name), is_directory, top, path / name, depth)

    def _remove_entry(
        self, directory: int, name: bytes, is_directory: bool, top: int, where: Path, depth: int
    ) -> None:
        try:
            if is_directory:
                self._remove_directory(directory, name, top, where, depth)
            else:
                os.unlink(name, dir_fd=directory)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise _mounted(where) from None
            raise libc.os_error(error, f"cannot remove {where}") from None

    def _remove_directory(self, directory: int, name: bytes, top: int, where: Path, depth: int) -> None:
        if depth >= _DEPTH_LIMIT:
            self._moved += 1
            os.rename(name, f".removing-{os.urandom(8).hex()}", src_dir_fd=directory, dst_dir_fd=top)
            return
        child = self._open(directory, name, where)
        if child is None:
            return
        try:
            self._empty(child, top, where, depth + 1)
        finally:
            os.close(child)
        os.rmdir(name, dir_fd=directory)

    def _open(self, directory: int, name: bytes, where: Path) -> int | None:
        """Open a directory unless something is mounted on it; a mount may have come meanwhile."""
        try:
            return beneath.open_directory(directory, name)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == errno.EXDEV:
                raise _mounted(where) from None
            raise libc.os_error(error, f"cannot remove {where}") from None
