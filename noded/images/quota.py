"""Limits on what a container may write: quota groups of btrfs, project quotas of xfs and ext4.

The limit covers the container's whole directory: its root file system and the volumes that its image
declares. What a copying storage driver put there of the image is not counted against it.

    data/quota    the limit in bytes; says that there is something to clean up
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

from noded.errors import FailedPrecondition
from noded.host import btrfs, files, project_quota
from noded.host.filesystems import BTRFS, EXT4, XFS, filesystem_magic, filesystem_name
from noded.images.drivers.copies import remove_subvolume
from noded.images.usage import read_base

_MARK = "quota"
_TREE = "tree"
_PROJECTS_FROM, _PROJECTS = 1 << 30, 1 << 30  # far above the numbers that people give by hand
_GROUPS_OWED = 1000


class Quotas:
    """The limited containers of one noded instance. Everything here blocks."""

    def __init__(self) -> None:
        self._owed_groups: set[int] = set()  # of deleted subvolumes that the kernel still works on

    def enclose(self, data: Path) -> None:
        """Make the directory of a container so that it can be limited. Idempotent.

        Raises: FailedPrecondition naming the file system and the cure.
        """
        magic = filesystem_magic(data.parent)
        if magic == BTRFS:
            if data.is_dir() and not btrfs.is_subvolume(data):
                with suppress(OSError):
                    data.rmdir()
            if not data.is_dir():
                btrfs.create_subvolume(data)
                data.chmod(0o700)
            if not btrfs.is_subvolume(data):
                raise FailedPrecondition(f"{data} was made without a disk quota: remove the container")
        elif magic in (XFS, EXT4):
            data.mkdir(mode=0o700, exist_ok=True)
            if not project_quota.project_of(data):
                project_quota.assign(data, _free_project(data))
        else:
            raise FailedPrecondition(
                f"no disk quota for containers: {data.parent} is on {filesystem_name(data.parent)}, "
                "which cannot limit a directory. Put it on btrfs with quotas, or on xfs or ext4 mounted "
                "with prjquota; or take the quota away"
            )
        files.publish(data / _MARK, b"", 0o600, durable=False)

    def limit(self, data: Path, quota_bytes: int) -> None:
        """Limit what the container writes from now on; its root file system is made.

        Raises: FailedPrecondition naming the file system and the cure.
        """
        tree, base = data / _TREE, read_base(data)
        if btrfs.is_subvolume(tree):
            btrfs.limit(tree, quota_bytes, exclusive=True)
        if filesystem_magic(data) == BTRFS:
            btrfs.limit(data, quota_bytes + base.used_bytes, exclusive=False)
        else:
            project_quota.limit(data, project_quota.project_of(data), quota_bytes + base.used_bytes)

    def remove(self, data: Path) -> None:
        """Delete the directory of a container, limited or not, and its limit. Idempotent."""
        if not (data / _MARK).exists():
            _remove_data(data)
            return
        if filesystem_magic(data) != BTRFS:
            # The limit first: nothing but the directory tells its project, so one that outlives it stays.
            if project := project_quota.project_of(data):
                project_quota.limit(data.parent, project, 0)
            _remove_data(data)
            return
        groups = {btrfs.subvolume_id(path) for path in (data / _TREE, data) if btrfs.is_subvolume(path)}
        _remove_data(data)
        if len(self._owed_groups) < _GROUPS_OWED:
            self._owed_groups |= groups
        # The kernel deletes subvolumes behind our back, and a group after that: now those of before.
        for group in tuple(self._owed_groups):
            if btrfs.destroy_quota_group(data.parent, group):
                self._owed_groups.discard(group)


def _remove_data(data: Path) -> None:
    remove_subvolume(data / _TREE)
    remove_subvolume(data)


def _free_project(data: Path) -> int:
    taken = set()
    for mark in data.parent.glob(f"*/{_MARK}"):
        with suppress(FileNotFoundError):
            taken.add(project_quota.project_of(mark.parent))
    project = int.from_bytes(hashlib.sha256(data.name.encode()).digest()[:8], "big")
    while (number := _PROJECTS_FROM + project % _PROJECTS) in taken:
        project += 1
    return number
