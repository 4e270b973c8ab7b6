"""Root file systems of containers: an overlay of the image's layers and a writable directory.

    root/containers/ID/                       state/containers/ID/   (gone after a reboot)
      upper/   what the container wrote          rootfs/   the overlay
      work/    overlayfs' own                    lowers/   for a moment: the layers with mapped owners
      lower/   links 0, 1, ... to the layers, where their paths are too long for one mount call

For a pod with a user namespace the lower layers are shown through an idmapped mount, and the upper
directory belongs to the mapped root. overlayfs keeps private copies of the mounts it was made from, so
that mount is taken down again at once.

The writable directory survives a reboot, the mount does not: `prepare` brings it back.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import trio

from noded.errors import InvalidArgument
from noded.host import files, mounts
from noded.images.filesystem import tree_usage
from noded.images.inherit import copy_root_metadata
from noded.images.layers import LayerStore
from noded.images.overlay import Writable, lower_chain, lower_trees, mapped_layers, mount_overlay
from noded.model.image import Image
from noded.model.paths import Layout
from noded.model.pod import IDMapping, UserNamespace


class Snapshots:
    """Root file systems of the containers of one noded instance."""

    def __init__(self, layout: Layout, layers: LayerStore) -> None:
        self._layout = layout
        self._layers = layers

    async def prepare(
        self, container_id: str, image: Image, userns: UserNamespace | None, *, mount_label: str = ""
    ) -> None:
        """Make and mount the root file system of a container at `layout.rootfs(container_id)`.

        Idempotent: what is there already is kept, the container's files above all.

        Args:
            userns: mappings of the pod's user namespace, None or empty = none.
            mount_label: SELinux label for all files ("" = the file system's own).

        Raises: FailedPrecondition when a layer is missing, or the kernel cannot map owners.
        Cancellation: not while the kernel works; a second call or `remove` continues from there.
        """
        await trio.to_thread.run_sync(self._prepare, container_id, image, userns, mount_label)

    async def remount(self, container_id: str, image: Image, userns: UserNamespace | None) -> None:
        """`prepare` by the name of what it does after a reboot."""
        await self.prepare(container_id, image, userns)

    async def remove(self, container_id: str) -> None:
        """Unmount and delete the root file system with all that the container wrote.

        Idempotent, and right when `prepare` never or half ran.
        Cancellation: waits for the work in progress.
        """
        await trio.to_thread.run_sync(self._remove, container_id)

    async def usage(self, container_id: str) -> tuple[int, int]:
        """(bytes, inodes) of what the container wrote; zeros when there is no such container."""
        return await trio.to_thread.run_sync(tree_usage, self._layout.container_data(container_id) / "upper")

    def mounted(self, container_id: str) -> bool:
        """Whether the root file system is mounted."""
        return mounts.is_mountpoint(self._layout.rootfs(container_id))

    def _prepare(
        self, container_id: str, image: Image, mapping: UserNamespace | None, mount_label: str
    ) -> None:
        rootfs = self._layout.rootfs(container_id)
        if mounts.is_mountpoint(rootfs):
            return
        chain = lower_chain(self._layers, image)
        if mapping is not None and not mapping.uids:
            mapping = None
        data = self._layout.container_data(container_id)
        data.mkdir(mode=0o700, parents=True, exist_ok=True)  # holds set-id programs: for root only
        self._make_writable(data, chain, mapping)
        rootfs.mkdir(mode=0o755, parents=True, exist_ok=True)
        writable = Writable(data / "upper", data / "work")
        if mapping is None:
            mount_overlay(rootfs, self._lowers(None, chain, data), data, writable, mount_label)
            return
        mapped = self._layout.bundle(container_id) / "lowers"
        with mapped_layers(self._layers, mapping, mapped):
            mount_overlay(rootfs, self._lowers(mapped, chain, data), data, writable, mount_label)

    def _lowers(self, directory: Path | None, chain: Sequence[str], data: Path) -> list[Path]:
        if chain:
            return lower_trees(self._layers, chain, directory)
        empty = data / "empty"  # overlayfs wants a lower layer, an image may have none
        empty.mkdir(exist_ok=True)
        return [empty]

    def _make_writable(self, data: Path, chain: Sequence[str], mapping: UserNamespace | None) -> None:
        """Make upper and work. The upper directory is the root that the container sees."""
        upper, work = data / "upper", data / "work"
        work.mkdir(mode=0o700, exist_ok=True)
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

    def _remove(self, container_id: str) -> None:
        for path in (self._layout.rootfs(container_id), self._layout.bundle(container_id) / "lowers"):
            # Lazily: a process of the host that looks into the tree must not keep the pod.
            mounts.unmount(path, detach=True)
            files.remove_tree(path)
        files.remove_tree(self._layout.container_data(container_id))


def _mapped_owner(mapping: UserNamespace, uid: int, gid: int) -> tuple[int, int]:
    """Owner on disk of what the container sees as uid:gid; its root where that is not mapped."""
    return _host_id(mapping.uids, uid, "uids"), _host_id(mapping.gids, gid, "gids")


def _host_id(mappings: Sequence[IDMapping], wanted: int, field: str) -> int:
    for number in (wanted, 0):
        for mapping in mappings:
            if 0 <= number - mapping.container_id < mapping.length:
                return mapping.host_id + number - mapping.container_id
    raise InvalidArgument(f"userns_options.{field} must map id 0 of the container")
