"""Whole file systems and trees of the image store: syncfs and usage. Everything here blocks."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from noded.host import libc

OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
BLOCK_BYTES = 512  # unit of st_blocks


def sync_filesystem(path: Path) -> None:
    """syncfs(2): make everything on the file system of the directory `path` durable."""
    fd = os.open(path, OPEN_DIRECTORY)
    try:
        libc.call("syncfs", ctypes.c_int(fd))
    except OSError as error:
        raise libc.os_error(error, f"cannot make {path} durable") from None
    finally:
        os.close(fd)


class TreeSize(NamedTuple):
    """What a tree takes.

    Args:
        used_bytes, used_inodes: on disk, as du(1) counts. A file system that compresses may count what is
            left of the bytes.
        length_bytes: of all its files, the same on every file system; each inode counts once.
    """

    used_bytes: int = 0
    used_inodes: int = 0
    length_bytes: int = 0


def tree_usage(path: Path) -> tuple[int, int]:
    """(bytes, inodes) on disk of a tree; see `tree_size`."""
    return tree_size(path)[:2]


def tree_size(path: Path) -> TreeSize:
    """Measure a tree; a missing one has nothing.

    Files that vanish meanwhile are left out, because containers write while this reads; so are those
    nested deeper than a path can say.
    """
    try:
        blocks, inodes = os.lstat(path).st_blocks, 1
    except FileNotFoundError:
        return TreeSize()
    length = 0
    linked: set[tuple[int, int]] = set()
    waiting = [os.fspath(path)]
    while waiting:
        for found, name in _items(waiting.pop()):
            if stat.S_ISDIR(found.st_mode):
                waiting.append(name)
            elif found.st_nlink > 1:
                if (found.st_dev, found.st_ino) in linked:
                    continue
                linked.add((found.st_dev, found.st_ino))
            if stat.S_ISREG(found.st_mode):
                length += found.st_size
            blocks += found.st_blocks
            inodes += 1
    return TreeSize(blocks * BLOCK_BYTES, inodes, length)


def _items(directory: str) -> Iterator[tuple[os.stat_result, str]]:
    gone = contextlib.suppress(FileNotFoundError, NotADirectoryError)
    try:
        with gone, os.scandir(directory) as listing:
            for item in listing:
                with gone:
                    yield item.stat(follow_symlinks=False), item.path
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise libc.os_error(error, f"cannot read {directory}") from None
