"""Owner, mode, extended attributes and times of what a layer holds.

Order: chown, chmod, xattrs, times. chown clears set-id bits and file capabilities, so it comes first;
times come last because everything else changes them.
"""

from __future__ import annotations

import errno
import os
import stat

from noded.images.unpack.entry import SYMLINK, Entry

SET_ID_BITS = 0o6000
_XATTRS = (b"user.", b"security.capability", b"system.posix_acl_access", b"system.posix_acl_default")
_OVERLAY_XATTRS = (b"user.overlay.", b"user.fuseoverlayfs.")
# ENOTSUP: the file system has none; EPERM: user.* on a link or device; the others: it is full of them.
_XATTR_LOSSES = (errno.ENOTSUP, errno.EPERM, errno.ENOSPC, errno.E2BIG, errno.ERANGE, errno.EINVAL)


class Metadata:
    """Gives new objects their metadata; `dropped_xattrs` counts the attributes it could not set."""

    def __init__(self) -> None:
        self.dropped_xattrs = 0
        # New objects belong to root:root and have the mode asked for, unless the root directory
        # hands its group or a default ACL down.
        root = os.stat(b".")
        inherits = root.st_gid != 0 or root.st_mode & stat.S_ISGID or os.geteuid() != 0
        self._plain_root = not inherits and _read_xattr(b".", b"system.posix_acl_default") is None

    def set_open_file(self, fd: int, entry: Entry) -> None:
        """Of a file just created with the entry's mode without its set-id bits."""
        if entry.uid or entry.gid or not self._plain_root:
            os.fchown(fd, entry.uid, entry.gid)
        if entry.mode & SET_ID_BITS or not self._plain_root:
            os.fchmod(fd, entry.mode)
        if entry.xattrs:
            self._set_xattrs(fd, entry)
        os.utime(fd, ns=_times(entry))

    def set_directory(self, fd: int, entry: Entry) -> None:
        """Of a directory in which nothing is created any more."""
        os.fchown(fd, entry.uid, entry.gid)
        os.fchmod(fd, entry.mode)
        if entry.xattrs:
            self._set_xattrs(fd, entry)
        os.utime(fd, ns=_times(entry))

    def set_link(self, path: bytes, entry: Entry, found: os.stat_result) -> None:
        """Give a linked inode the metadata of this entry; the last one wins, as in both peers.

        An owner that is already right is left alone: chown would clear file capabilities, which
        writers often record on the first name only.
        """
        if stat.S_ISLNK(found.st_mode) or not (stat.S_ISREG(found.st_mode) or entry.mode):
            return
        changed = (found.st_uid, found.st_gid) != (entry.uid, entry.gid)
        capability = None
        if changed:
            capability = _read_xattr(path, b"security.capability")
            os.lchown(path, entry.uid, entry.gid)
        if changed or stat.S_IMODE(found.st_mode) != entry.mode:
            os.chmod(path, entry.mode)
        if capability is not None:
            entry.xattrs.setdefault(b"security.capability", capability)
        if entry.xattrs:
            self._set_xattrs(path, entry)
        os.utime(path, ns=_times(entry))

    def set_node(self, path: bytes, entry: Entry) -> None:
        """Of a device or fifo."""
        os.lchown(path, entry.uid, entry.gid)
        os.chmod(path, entry.mode)
        self.set_symlink(path, entry)

    def set_symlink(self, path: bytes, entry: Entry) -> None:
        """Of a symbolic link, which has no mode."""
        if entry.kind == SYMLINK and (entry.uid or entry.gid or not self._plain_root):
            os.lchown(path, entry.uid, entry.gid)
        if entry.xattrs:
            self._set_xattrs(path, entry)
        os.utime(path, ns=_times(entry), follow_symlinks=False)

    def _set_xattrs(self, target: bytes | int, entry: Entry) -> None:
        for name, value in entry.xattrs.items():
            if not name.startswith(_XATTRS) or name.startswith(_OVERLAY_XATTRS) or b"\0" in name:
                self.dropped_xattrs += 1
                continue
            try:
                if isinstance(target, int):
                    os.setxattr(target, name, value)
                else:
                    os.setxattr(target, name, value, follow_symlinks=False)
            except OSError as error:
                if error.errno not in _XATTR_LOSSES or name == b"security.capability":
                    raise
                self.dropped_xattrs += 1


def _times(entry: Entry) -> tuple[int, int]:
    return (entry.mtime_ns if entry.atime_ns is None else entry.atime_ns), entry.mtime_ns


def _read_xattr(path: bytes, name: bytes) -> bytes | None:
    try:
        return os.getxattr(path, name, follow_symlinks=False)
    except OSError:
        return None
