"""Gives every file of a tree one SELinux context.

The tree may be a container's, which changes it meanwhile: nothing follows a link or enters a mount, and
what vanishes is passed over.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

from noded.errors import FailedPrecondition
from noded.host import beneath, libc

ATTRIBUTE = "security.selinux"

# With the label of a pod on these, the node itself could not use them any more.
_NEVER = frozenset(
    [
        "/",
        "/bin",
        "/boot",
        "/dev",
        "/etc",
        "/etc/passwd",
        "/etc/pki",
        "/etc/shadow",
        "/home",
        "/lib",
        "/lib64",
        "/media",
        "/mnt",
        "/opt",
        "/proc",
        "/root",
        "/run",
        "/sbin",
        "/srv",
        "/sys",
        "/tmp",
        "/usr",
        "/usr/bin",
        "/usr/lib",
        "/usr/lib64",
        "/usr/sbin",
        "/usr/share",
        "/var",
        "/var/cache",
        "/var/lib",
        "/var/log",
        "/var/run",
        "/var/tmp",
    ]
)
_WITH_ALL_BELOW = ("/proc", "/sys", "/dev")

_GONE = (errno.ENOENT, errno.ESTALE)


def check_relabel(path: str) -> None:
    """Refuse directories of the node itself. `path` has no links in it.

    Raises: FailedPrecondition.
    """
    normal = os.path.normpath(path)
    if normal in _NEVER or normal.startswith(tuple(f"{top}/" for top in _WITH_ALL_BELOW)):
        raise FailedPrecondition(
            f"selinux_relabel of {normal} is not allowed: the node's own programs could not use it any more"
        )


def relabel_tree(
    path: Path, label: str, check_cancelled: Callable[[], None], *, attribute: str = ATTRIBUTE
) -> int:
    """Label a file, or a directory with all below it on the same mount; return how many files changed.

    Idempotent. Blocks as long as the tree is large: use from a worker thread. File systems without such
    labels (NFS, FAT) are left alone, as both peers do: their mount has the label.

    Args:
        check_cancelled: called for each directory; what it raises ends the walk.
        attribute: name of the extended attribute.

    Raises: FailedPrecondition and others by errno, naming the path.
    """
    value = label.encode()
    try:
        top = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise libc.os_error(error, f"cannot relabel {path}") from None
    try:
        return _Walk(path, top, value, attribute, check_cancelled).run()
    finally:
        os.close(top)


class _Walk:
    def __init__(
        self, path: Path, top: int, value: bytes, attribute: str, check_cancelled: Callable[[], None]
    ) -> None:
        self._path = path
        self._top = top
        self._value = value
        self._attribute = attribute
        self._check_cancelled = check_cancelled
        self._changed = 0

    def run(self) -> int:
        self._label(f"/proc/self/fd/{self._top}", b"", follow=True)
        # Names from the top, not descriptors: the depth of a hostile tree costs none. One that is deeper
        # than PATH_MAX is refused by the kernel.
        pending = [b"."] if self._is_directory() else []
        while pending:
            self._check_cancelled()
            self._directory(pending.pop(), pending)
        return self._changed

    def _is_directory(self) -> bool:
        try:
            os.close(os.open(f"/proc/self/fd/{self._top}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        except NotADirectoryError:
            return False
        return True

    def _directory(self, name: bytes, pending: list[bytes]) -> None:
        try:
            directory = beneath.open_directory(self._top, name)
        except OSError as error:
            # Replaced by a link or a file, or something is mounted on it: not ours.
            if error.errno in (*_GONE, errno.ENOTDIR, errno.ELOOP, errno.EXDEV):
                return
            raise self._failure(error, name) from None
        try:
            with os.scandir(directory) as listing:
                for entry in listing:
                    child = os.path.join(name, os.fsencode(entry.name))
                    # lsetxattr(2) in an open directory: no part of this path is followed.
                    self._label(f"/proc/self/fd/{directory}/{entry.name}", child, follow=False)
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(child)
        except OSError as error:
            if error.errno not in _GONE:
                raise self._failure(error, name) from None
        finally:
            os.close(directory)

    def _label(self, file: str, name: bytes, *, follow: bool) -> None:
        try:
            if self._has(file, follow=follow):
                return
            os.setxattr(file, self._attribute, self._value, follow_symlinks=follow)
        except OSError as error:
            if error.errno in (*_GONE, errno.EOPNOTSUPP):
                return
            raise self._failure(error, name) from None
        self._changed += 1

    def _has(self, file: str, *, follow: bool) -> bool:
        """A file that has the label keeps its change time."""
        try:
            found = os.getxattr(file, self._attribute, follow_symlinks=follow)
        except OSError as error:
            if error.errno == errno.ENODATA:
                return False
            raise
        return found.rstrip(b"\0") == self._value

    def _failure(self, error: OSError, name: bytes) -> Exception:
        where = self._path / os.fsdecode(name) if name else self._path
        return libc.os_error(error, f"cannot relabel {where}")
