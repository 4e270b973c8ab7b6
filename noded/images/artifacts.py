"""The tree of an artifact: its blobs under the names that their titles give them. Blocking.

The files are hard links to the blobs, so an artifact takes its space once. A blob is never changed once
it has its name, and a container gets the tree read-only.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from noded.errors import NotFound
from noded.host import libc
from noded.images.filesystem import BLOCK_BYTES

_NO_LINK = (errno.EXDEV, errno.EMLINK, errno.EPERM, errno.ENOTSUP)


def make_files(tree: Path, files: Sequence[tuple[str, Path]]) -> tuple[int, int]:
    """Fill the empty directory `tree`; returns what it takes on disk beside the blobs: bytes and inodes.

    Args:
        files: (path below the tree, blob); the paths are checked already.

    Raises: NotFound naming a missing blob; by errno.
    """
    inodes, blocks = 1, 0
    for name, blob in files:
        target = tree / name
        inodes += _make_parents(tree, target.parent)
        try:
            os.link(blob, target, follow_symlinks=False)
        except FileNotFoundError:
            raise NotFound(f"blob {blob.name} of file {name!r} is not in the local store") from None
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise libc.os_error(error, f"cannot make file {name!r} of an artifact") from None
            shutil.copyfile(blob, target, follow_symlinks=False)
            blocks += os.lstat(target).st_blocks
            inodes += 1
        target.chmod(0o444)  # a container's user may be anybody; the directories of the blobs are closed
    for top, _, _ in os.walk(tree):
        blocks += os.lstat(top).st_blocks
    return blocks * BLOCK_BYTES, inodes


def _make_parents(tree: Path, directory: Path) -> int:
    if directory == tree or directory.is_dir():
        return 0
    made = _make_parents(tree, directory.parent)
    directory.mkdir()
    directory.chmod(0o755)
    return made + 1
