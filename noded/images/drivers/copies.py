"""Whole copies of images: `vfs`, which works on every file system, and btrfs snapshots.

    data/tree/        the root file system, bound to its mount point (with mapped owners if need be)
    data/base.json    what the image took of it when it was made

`vfs` copies the image for each container, by reflinks where the file system has them (xfs, btrfs). The
`btrfs` driver makes one such copy per image, a subvolume beside the image's uppermost layer, and a
snapshot of that for each container; the copy goes with the layer:

    layers/CHAIN_HEX/merged/        the subvolume
    layers/CHAIN_HEX/merged.json    what it takes

Copies have no overlay in them, so these drivers run where overlayfs cannot. Image volumes are mounted
by overlayfs all the same: read-only it stands on almost every file system.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from threading import Lock

from noded.errors import FailedPrecondition
from noded.host import btrfs, files, mounts, userns
from noded.host.filesystems import BTRFS, filesystem_magic, filesystem_name
from noded.images.drivers.driver import Rootfs
from noded.images.filesystem import sync_filesystem, tree_usage
from noded.images.layers import MERGED
from noded.images.merge import merge_layers
from noded.images.overlay import Trees, mount_overlay
from noded.images.usage import BASE, Base

_TREE = "tree"


class CopyDriver:
    """`vfs`: a copy for each container."""

    name = "vfs"
    stack = staticmethod(mount_overlay)

    def __init__(self, layers: Trees) -> None:
        self._layers = layers

    def check(self) -> None:
        """Spec: `Driver.check`. Every file system will do."""

    def prepare(self, rootfs: Rootfs, check: Callable[[], object]) -> None:
        """Spec: `Driver.prepare`."""
        if rootfs.mount_label:
            raise FailedPrecondition(
                f"storage driver {self.name} sets no SELinux labels: use storage_driver = 'overlay'"
            )
        tree = rootfs.data / _TREE
        if not tree.is_dir():
            self._make(rootfs, tree, check)
        _show(tree, rootfs)

    def _make(self, rootfs: Rootfs, tree: Path, check: Callable[[], object]) -> None:
        fresh = rootfs.data / "tree.new"
        files.remove_tree(fresh)
        fresh.mkdir()
        fresh.chmod(0o755)
        shared = merge_layers([self._layers.tree(one) for one in rootfs.chain], fresh, check)
        _publish_base(rootfs.data / BASE, Base(*tree_usage(fresh), shared))
        fresh.rename(tree)


class BtrfsDriver(CopyDriver):
    """A snapshot for each container, of one subvolume per image."""

    name = "btrfs"

    def __init__(self, layers: Trees, containers: Path) -> None:
        super().__init__(layers)
        self._containers = containers
        self._merging = Lock()  # one image at a time; containers of others wait, they share the disk anyway

    def check(self) -> None:
        """Spec: `Driver.check`."""
        for path in (self._layers.directory, self._containers):
            if filesystem_magic(path) != BTRFS:
                raise FailedPrecondition(
                    f"{path} is on {filesystem_name(path)}: storage_driver = 'btrfs' needs btrfs there, "
                    "choose 'overlay' or move `root`"
                )

    def _make(self, rootfs: Rootfs, tree: Path, check: Callable[[], object]) -> None:
        if not rootfs.chain:
            _publish_base(rootfs.data / BASE, Base(0, 0, shared=True))
            btrfs.create_subvolume(tree)
            return
        home = self._layers.tree(rootfs.chain[0]).parent
        if home.parent != self._layers.directory:
            # In somebody else's store nothing is written: this container gets a copy of its own.
            super()._make(rootfs, tree, check)
            return
        with self._merging:
            self._merge(rootfs, home, check)
            files.publish(rootfs.data / BASE, (home / f"{MERGED}.json").read_bytes(), 0o600, durable=True)
            btrfs.snapshot(home / MERGED, tree)

    def _merge(self, rootfs: Rootfs, home: Path, check: Callable[[], object]) -> None:
        merged, fresh = home / MERGED, home / f"{MERGED}.new"
        if merged.is_dir():
            return
        remove_subvolume(fresh)
        btrfs.create_subvolume(fresh)
        shared = merge_layers([self._layers.tree(one) for one in rootfs.chain], fresh, check)
        _publish_base(home / f"{MERGED}.json", Base(*tree_usage(fresh), shared))
        sync_filesystem(home)  # its name is a promise to all containers to come
        fresh.rename(merged)


def remove_subvolume(path: Path) -> None:
    """Delete a subvolume, or directory, with everything below. Idempotent."""
    if not btrfs.is_subvolume(path) or not btrfs.destroy_subvolume(path):
        files.remove_tree(path)  # subvolumes inside, which containers may make, go like directories


def _publish_base(path: Path, base: Base) -> None:
    files.publish(path, json.dumps(asdict(base)).encode(), 0o600, durable=True)


def _show(tree: Path, rootfs: Rootfs) -> None:
    if rootfs.mapping is None:
        mounts.bind(tree, rootfs.target)
        return
    with userns.open_mapped_userns(rootfs.mapping.uids, rootfs.mapping.gids) as fd:
        mounts.idmap_bind(tree, rootfs.target, fd, readonly=False)
