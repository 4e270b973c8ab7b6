"""Images as read-only volumes of containers (CRI `Mount.image`).

    state/containers/ID/images/N/      (gone after a reboot; N: position in the container's mounts)
      tree/    the image
      lower/   links to its layers, where their paths are too long for one mount call
      empty/   the lowest layer, since a read-only overlay takes two

An image of one layer is mounted by overlayfs, too: its tree has whiteouts in it, which only overlayfs
understands.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

from noded.errors import FailedPrecondition, ImageVolumeMountFailed, NodedError, NotFound
from noded.host import files, mounts
from noded.host.beneath import resolve_beneath
from noded.images.drivers.driver import Stack
from noded.images.overlay import Trees, lower_chain, lower_trees, mapped_layers, mount_overlay
from noded.model.image import Image
from noded.model.paths import Layout
from noded.model.pod import UserNamespace


class ImageVolumes:
    """The mounted image volumes of all containers."""

    def __init__(
        self,
        layout: Layout,
        layers: Trees,
        stack: Stack = mount_overlay,
        reach: Callable[[Image], Awaitable[None]] | None = None,
    ) -> None:
        self._reach = reach
        self._layout = layout
        self._layers = layers
        self._stack = stack

    async def mount(
        self, container_id: str, index: int, image: Image, userns: UserNamespace | None, mount_label: str = ""
    ) -> None:
        """Mount an image as the volume `mounts[index]` of a container. Idempotent.

        Args:
            userns: of the pod, None or empty = none; its root owns what root owns in the image.
            mount_label: SELinux label for all files ("" = the file system's own).

        Raises: ImageVolumeMountFailed saying why.
        Cancellation: not while the kernel works; a second call or `unmount_all` continues from there.
        """
        try:
            if self._reach is not None:
                await self._reach(image)
            await trio.to_thread.run_sync(
                self._mount, self._directory(container_id, index), image, userns, mount_label
            )
        except ImageVolumeMountFailed:
            raise
        except NodedError as error:
            raise ImageVolumeMountFailed(f"mounts[{index}].image: {error}") from error

    async def source(self, container_id: str, index: int, sub_path: str) -> str:
        """The host path of a mounted volume or of a part of it, links resolved inside the image.

        Raises: ImageVolumeMountFailed when the image has no such path.
        """
        tree = self._directory(container_id, index) / "tree"
        try:
            return str(await trio.to_thread.run_sync(resolve_beneath, tree, sub_path or "."))
        except (NotFound, FailedPrecondition) as error:
            raise ImageVolumeMountFailed(
                f"mounts[{index}].image_sub_path: the image has no {sub_path!r}"
            ) from error

    async def unmount_all(self, container_id: str) -> None:
        """Take all image volumes of a container down. Idempotent, and right when they were half made.

        Cancellation: waits for the work in progress.
        """
        await trio.to_thread.run_sync(self._unmount_all, self._layout.bundle(container_id) / "images")

    def _directory(self, container_id: str, index: int) -> Path:
        return self._layout.bundle(container_id) / "images" / str(index)

    def _mount(self, directory: Path, image: Image, mapping: UserNamespace | None, mount_label: str) -> None:
        tree, empty = directory / "tree", directory / "empty"
        if mounts.is_mountpoint(tree):
            return
        chain = lower_chain(self._layers, image)
        # The runtime of a pod with a user namespace comes through here as one of its users.
        for path in (directory.parent, directory, tree, empty):
            path.mkdir(mode=0o711, parents=True, exist_ok=True)
            path.chmod(0o755 if path in (tree, empty) else 0o711)
        if not chain:
            mounts.bind(empty, tree, readonly=True)
        elif mapping is None or not mapping.uids:
            self._stack(tree, [*lower_trees(self._layers, chain), empty], directory, None, mount_label)
        else:
            mapped = directory / "mapped"
            with mapped_layers(self._layers, mapping, mapped):
                lowers = [*lower_trees(self._layers, chain, mapped), empty]
                self._stack(tree, lowers, directory, None, mount_label)

    def _unmount_all(self, directory: Path) -> None:
        try:
            volumes = list(directory.iterdir())
        except FileNotFoundError:
            return
        for volume in volumes:
            for name in ("tree", "mapped"):
                # Lazily: a process of the host that looks into the tree must not keep the pod.
                mounts.unmount(volume / name, detach=True)
        files.remove_tree(directory)
