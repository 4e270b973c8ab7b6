"""Writable layers above the image's own: the kernel's overlayfs, or fuse-overlayfs.

    data/upper/   what the container wrote      data/lower/   links to the layers, where paths are long
    data/work/    overlayfs' own

For a pod with a user namespace the lower layers are shown through an idmapped mount, and the upper
directory belongs to the mapped root. overlayfs keeps private copies of the mounts it was made from,
and fuse-overlayfs descriptors, so that mount is taken down again at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from noded.errors import InvalidArgument
from noded.host import files
from noded.images.drivers.driver import Rootfs, Stack
from noded.images.inherit import copy_root_metadata
from noded.images.overlay import Trees, Writable, lower_trees, mapped_layers, mount_overlay
from noded.model.pod import IDMapping, UserNamespace


class OverlayDriver:
    """Root file systems on a stackable file system."""

    def __init__(
        self,
        layers: Trees,
        name: str = "overlay",
        stack: Stack = mount_overlay,
        check: Callable[[], None] | None = None,
    ) -> None:
        self.name = name
        self.stack = stack
        self._layers = layers
        self._check = check

    def check(self) -> None:
        """Spec: `Driver.check`."""
        if self._check is not None:
            self._check()

    def prepare(self, rootfs: Rootfs, check: Callable[[], object]) -> None:
        """Spec: `Driver.prepare`."""
        self._make_writable(rootfs.data, rootfs.chain, rootfs.mapping)
        writable = Writable(rootfs.data / "upper", rootfs.data / "work")
        check()
        if rootfs.mapping is None:
            lowers = self._lowers(None, rootfs)
            self.stack(rootfs.target, lowers, rootfs.data, writable, rootfs.mount_label)
            return
        mapped = rootfs.scratch / "lowers"
        with mapped_layers(self._layers, rootfs.mapping, mapped):
            lowers = self._lowers(mapped, rootfs)
            self.stack(rootfs.target, lowers, rootfs.data, writable, rootfs.mount_label)

    def _lowers(self, directory: Path | None, rootfs: Rootfs) -> list[Path]:
        if rootfs.chain:
            return lower_trees(self._layers, rootfs.chain, directory)
        empty = rootfs.data / "empty"  # overlayfs wants a lower layer, an image may have none
        empty.mkdir(exist_ok=True)
        return [empty]

    def _make_writable(self, data: Path, chain: Sequence[str], mapping: UserNamespace | None) -> None:
        """Make upper and work. The upper directory is the root that the container sees."""
        upper, work = data / "upper", data / "work"
        # A mount without write-back marks its work directory as not to be used again.
        files.remove_tree(work)
        work.mkdir(mode=0o700)
        if mapping is not None:
            os.chown(work, *_mapped_owner(mapping, 0, 0))
        if upper.is_dir():
            return
        # Complete before it gets its name: a later call takes an existing one as it is.
        fresh = data / "upper.new"
        files.remove_tree(fresh)
        fresh.mkdir()
        fresh.chmod(0o755)
        owner = None if mapping is None else _mapped_owner(mapping, 0, 0)
        if chain:
            root = self._layers.tree(chain[0])
            found = root.stat()
            if mapping is not None:
                owner = _mapped_owner(mapping, found.st_uid, found.st_gid)
            copy_root_metadata(root, fresh, owner)
        elif owner is not None:
            os.chown(fresh, *owner)
        fresh.rename(upper)


def _mapped_owner(mapping: UserNamespace, uid: int, gid: int) -> tuple[int, int]:
    """Owner on disk of what the container sees as uid:gid; its root where that is not mapped."""
    return _host_id(mapping.uids, uid, "uids"), _host_id(mapping.gids, gid, "gids")


def _host_id(mappings: Sequence[IDMapping], wanted: int, field: str) -> int:
    for number in (wanted, 0):
        for mapping in mappings:
            if 0 <= number - mapping.container_id < mapping.length:
                return mapping.host_id + number - mapping.container_id
    raise InvalidArgument(f"userns_options.{field} must map id 0 of the container")
