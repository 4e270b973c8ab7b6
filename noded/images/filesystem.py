"""Whole file systems and trees of the image store: syncfs and usage. Everything here blocks."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

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


def tree_usage(path: Path) -> tuple[int, int]:
    """(bytes, inodes) on disk of a tree, as du(1) counts; a missing tree has none.

    Files that vanish meanwhile are left out, because containers write while this reads; so are those
    nested deeper than a path can say.
    """
    try:
        blocks, inodes = os.lstat(path).st_blocks, 1
    except FileNotFoundError:
        return 0, 0
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
            blocks += found.st_blocks
            inodes += 1
    return blocks * BLOCK_BYTES, inodes


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
