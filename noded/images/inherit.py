"""What the extracting child may not do or cannot know: overlay attributes and lower directories.

A tree is extracted on its own, without the layers below. A directory that a layer uses but does not
describe would then hide the lower one's owner, mode and attributes in the overlay, because the
uppermost directory wins. So it gets them from the lower layer that shows through.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Sequence
from pathlib import Path

from noded.host import beneath
from noded.images.filesystem import OPEN_DIRECTORY

OPAQUE = b"trusted.overlay.opaque"
_IN_TREE = beneath.RESOLVE_IN_ROOT | beneath.RESOLVE_NO_SYMLINKS | beneath.RESOLVE_NO_XDEV
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_KEPT_XATTRS = ("user.", "system.posix_acl_")
_DROPPED_XATTRS = ("user.overlay.",)


def mark_opaque(tree: Path, directories: Collection[str]) -> None:
    """Make directories of a layer hide those of lower layers.

    The paths come from a process that read hostile input: none leaves `tree` or follows a link, and
    one that is no directory is passed over.
    """
    top = os.open(tree, OPEN_DIRECTORY)
    try:
        for path in directories:
            fd = _open(top, path)
            if fd >= 0:
                try:
                    os.setxattr(fd, OPAQUE, b"y")
                finally:
                    os.close(fd)
    finally:
        os.close(top)


def inherit_metadata(
    tree: Path, implied: Sequence[str], opaque: Collection[str], lowers: Sequence[Path]
) -> None:
    """Give each implied directory of `tree` the owner, mode, attributes and times of the lower one.

    Args:
        implied: paths relative to the tree, "" is its root.
        opaque: directories of the tree below which nothing of the lower layers shows.
        lowers: trees of the lower layers, the nearest first.
    """
    if not implied or not lowers:
        return
    hidden = frozenset(opaque)
    top = os.open(tree, OPEN_DIRECTORY)
    try:
        for path in implied:
            if hidden and is_below(path, hidden):
                continue
            source = _lookup(lowers, path)
            if source < 0:
                continue
            try:
                target = _open(top, path)
                if target >= 0:
                    try:
                        _copy_metadata(source, target)
                    finally:
                        os.close(target)
            finally:
                os.close(source)
    finally:
        os.close(top)


def is_below(path: str, hidden: Collection[str]) -> bool:
    """Whether one of the directories above `path` is in `hidden`."""
    while path:
        path = path.rpartition("/")[0]
        if path in hidden:
            return True
    return False


def _lookup(lowers: Sequence[Path], path: str) -> int:
    """An open directory of the first lower layer that shows `path`, -1 if none does."""
    for lower in lowers:
        fd, last = _descend(lower, path)
        if fd >= 0 or last:
            return fd
    return -1


def _descend(lower: Path, path: str) -> tuple[int, bool]:
    """(open directory or -1, whether this layer hides the ones below it here)."""
    fd = os.open(lower, OPEN_DIRECTORY)
    last = False
    for part in path.split("/") if path else ():
        last = last or is_opaque(fd)
        try:
            deeper = os.open(part, OPEN_DIRECTORY, dir_fd=fd)
        except OSError as error:
            if error.errno not in _NOT_THERE:
                raise
            # A file, link or whiteout hides whatever is below; a missing name hides nothing.
            return -1, last or error.errno != errno.ENOENT
        finally:
            os.close(fd)
        fd = deeper
    return fd, True


def is_opaque(fd: int) -> bool:
    """Whether an open directory hides those of lower layers."""
    try:
        return os.getxattr(fd, OPAQUE) == b"y"
    except OSError:
        return False


def _open(top: int, path: str) -> int:
    try:
        return beneath.openat2(top, os.fsencode(path) or b".", OPEN_DIRECTORY, _IN_TREE)
    except OSError as error:
        if error.errno in (*_NOT_THERE, errno.EXDEV):
            return -1
        raise


def _copy_metadata(source: int, target: int) -> None:
    found = os.fstat(source)
    os.fchown(target, found.st_uid, found.st_gid)
    os.fchmod(target, found.st_mode & 0o7777)
    for name in os.listxattr(source):
        if name.startswith(_KEPT_XATTRS) and not name.startswith(_DROPPED_XATTRS):
            os.setxattr(target, name, os.getxattr(source, name))
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))


def copy_root_metadata(source: Path, target: Path, owner: tuple[int, int] | None = None) -> None:
    """Give the directory `target` the metadata of the directory `source`, or another owner."""
    ours, theirs = os.open(target, OPEN_DIRECTORY), os.open(source, OPEN_DIRECTORY)
    try:
        _copy_metadata(theirs, ours)
        if owner is not None:
            found = os.fstat(theirs)
            os.fchown(ours, *owner)
            os.fchmod(ours, found.st_mode & 0o7777)  # chown drops set-id bits
    finally:
        os.close(ours)
        os.close(theirs)
