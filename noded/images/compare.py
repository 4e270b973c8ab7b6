"""Whether two trees are the same, as far as a container can tell. Blocking."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from noded.host import libc

_CHUNK_BYTES = 1 << 20


def first_difference(one: Path, two: Path) -> str:
    """The first path that differs, with what differs, as "etc/passwd: content"; "" for equal trees.

    Compared are names, types, modes, owners, device numbers, link targets, link counts, extended
    attributes, contents, and the times of everything but directories and whiteouts: those may be the
    moment of the extraction. Paths longer than the kernel takes are left out.

    Raises: by errno when a tree cannot be read.
    """
    try:
        for path in _paths(one, two):
            what = _difference(one / path, two / path)
            if what:
                return f"{path or '/'}: {what}"
    except OSError as error:
        raise libc.os_error(error, f"cannot compare {one} and {two}") from None
    return ""


def _paths(one: Path, two: Path) -> Iterator[str]:
    waiting = [""]
    while waiting:
        path = waiting.pop()
        yield path
        if not stat.S_ISDIR(os.lstat(one / path).st_mode):
            continue
        names = set()
        for tree in (one, two):
            try:
                names.update(os.listdir(tree / path))
            except OSError as error:
                if error.errno != errno.ENAMETOOLONG:
                    raise
        waiting += sorted((f"{path}/{name}" if path else name for name in names), reverse=True)


def _difference(one: Path, two: Path) -> str:
    try:
        ours, theirs = os.lstat(one), os.lstat(two)
    except FileNotFoundError as error:
        return "missing" if error.filename == os.fspath(one) else "should not be there"
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return ""
        raise
    if ours.st_mode != theirs.st_mode:
        return f"mode {stat.filemode(ours.st_mode)} instead of {stat.filemode(theirs.st_mode)}"
    if (ours.st_uid, ours.st_gid) != (theirs.st_uid, theirs.st_gid):
        return f"owner {ours.st_uid}:{ours.st_gid} instead of {theirs.st_uid}:{theirs.st_gid}"
    if _xattrs(one) != _xattrs(two):
        return "extended attributes"
    if stat.S_ISDIR(ours.st_mode):
        return ""
    if ours.st_nlink != theirs.st_nlink:
        return f"{ours.st_nlink} hard links instead of {theirs.st_nlink}"
    if ours.st_rdev != theirs.st_rdev:
        return "device number"
    if stat.S_ISLNK(ours.st_mode) and os.readlink(one) != os.readlink(two):
        return "link target"
    if stat.S_ISREG(ours.st_mode) and ours.st_size != theirs.st_size:
        return f"{ours.st_size} bytes instead of {theirs.st_size}"
    if stat.S_ISREG(ours.st_mode) and not _same_content(one, two):
        return "content"
    whiteout = stat.S_ISCHR(ours.st_mode) and ours.st_rdev == 0
    return "" if whiteout or ours.st_mtime_ns == theirs.st_mtime_ns else "modification time"


def _xattrs(path: Path) -> dict[str, bytes]:
    names = os.listxattr(path, follow_symlinks=False)
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in names}


def _same_content(one: Path, two: Path) -> bool:
    with one.open("rb", buffering=0) as ours, two.open("rb", buffering=0) as theirs:
        while True:
            chunk = ours.read(_CHUNK_BYTES)
            if chunk != theirs.read(_CHUNK_BYTES):
                return False
            if not chunk:
                return True
