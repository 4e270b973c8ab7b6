"""Containers that are made from a checkpoint: an archive on this node, or an image of one.

    root/restores/ID/   the archive's files, from CreateContainer until the container runs

An image needs no such copy: its layer, which the container's record keeps, has the files. The new
container has the mounts, namespaces, limits and cgroup of its own request; from the checkpoint come its
processes and the files that it had written.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
import trio

from noded.engine.container import Container
from noded.errors import FailedPrecondition, InvalidArgument, NodedError, NotFound
from noded.host import files
from noded.images.checkpoint_archive import (
    MEMBER_LIMIT_BYTES,
    check_images,
    open_archive_file,
    read_member,
)
from noded.images.library import Library
from noded.images.overlay import Trees, lower_chain, lower_trees
from noded.images.unpack.client import Unpacker
from noded.images.unpack.limits import UnpackLimits
from noded.model.checkpoint import (
    CONFIG_DUMP,
    DELETED_FILES,
    IMAGE_ANNOTATION,
    IMAGES_DIRECTORY,
    ROOTFS_DIFF,
    SPEC_DUMP,
    base_images,
    deleted_paths,
    missing_mounts,
    parse_object,
)
from noded.model.image import Image
from noded.model.paths import Layout
from noded.runtimes.records import PID_FILE, read_pid_file

log = structlog.get_logger(__name__)

_DELETED_LIMIT_BYTES = 64 << 20
_TAR = "application/vnd.oci.image.layer.v1.tar"


@dataclass(frozen=True, slots=True)
class Origin:
    """What a container is to be restored from.

    Args:
        restore: as in `ContainerRecord.restore`.
        image: whose root file system it has.
        checkpoint: the image that holds the checkpoint, None for an archive.
    """

    restore: str
    image: Image
    checkpoint: Image | None


class Restores:
    """Finds checkpoints and gives their files to containers."""

    def __init__(
        self, *, enabled: bool, layout: Layout, images: Library, layers: Trees, unpacker: Unpacker
    ) -> None:
        self._enabled = enabled
        self._layout = layout
        self._images = images
        self._layers = layers
        self._unpacker = unpacker

    async def origin(self, name: str) -> Origin | None:
        """What the `image` of a request means if it is a checkpoint, None for other images.

        Raises: NotFound for an archive or an image that is not there, InvalidArgument, DataLoss,
            FailedPrecondition when restoring is off.
        """
        archive = Path(name) if name.startswith("/") else None
        checkpoint = None if archive else self._images.get(name)
        if archive is None and (checkpoint is None or IMAGE_ANNOTATION not in checkpoint.config.annotations):
            return None
        if not self._enabled:
            raise FailedPrecondition(
                f"image {name!r} is a checkpoint, and this node restores none: "
                "set [checkpoint] restore = true if you trust it"
            )
        if archive is not None:
            data = await trio.to_thread.run_sync(read_member, archive, CONFIG_DUMP)
        else:
            assert checkpoint is not None
            data = await trio.to_thread.run_sync(_member, self._tree(checkpoint), CONFIG_DUMP)
        wanted = base_images(data)
        image = next((found for one in wanted if (found := self._images.get(one)) is not None), None)
        if image is None:
            raise NotFound(f"image {wanted[-1]!r} of the checkpoint is not on this node: pull it first")
        return Origin(name if checkpoint is None else checkpoint.id, image, checkpoint)

    async def bring_files(self, container: Container) -> None:
        """Unpack the checkpoint and make the root file system what it was. It must be mounted.

        Raises: InvalidArgument, DataLoss, ResourceExhausted; NotFound when parts are missing.
        """
        container.stage = "unpacking the checkpoint"
        directory = await self._unpacked(container)
        await trio.to_thread.run_sync(check_images, directory / IMAGES_DIRECTORY)
        rootfs = self._layout.rootfs(container.id)
        diff = directory / ROOTFS_DIFF
        if await trio.to_thread.run_sync(_is_file, diff):
            fd = await trio.to_thread.run_sync(open_archive_file, diff)
            try:
                await self._unpacker.unpack(fd, rootfs, _TAR, "", UnpackLimits(in_place=True))
            finally:
                os.close(fd)
        data = await trio.to_thread.run_sync(
            files.read_beneath, directory, DELETED_FILES, _DELETED_LIMIT_BYTES
        )
        if data is not None:
            for path in deleted_paths(data):
                await trio.to_thread.run_sync(_remove_beneath, rootfs, path)

    async def _unpacked(self, container: Container) -> Path:
        if not container.record.restore.startswith("/"):
            return await self._directory(container)
        directory = self._layout.restore(container.id)
        fd = await trio.to_thread.run_sync(open_archive_file, Path(container.record.restore))
        try:
            await trio.to_thread.run_sync(files.remove_tree, directory)
            await trio.Path(directory).mkdir(mode=0o700, parents=True)
            await self._unpacker.unpack(fd, directory, _TAR, "")
        finally:
            os.close(fd)
        await trio.Path(directory).chmod(0o700)  # it has the container's memory; a tar can change its root
        return directory

    async def check_mounts(self, container: Container, spec: Mapping[str, Any]) -> None:
        """Raises: InvalidArgument when the new container lacks mounts that the checkpointed one had."""
        directory = await self._directory(container)
        data = await trio.to_thread.run_sync(_member, directory, SPEC_DUMP)
        missing = missing_mounts(parse_object(data, SPEC_DUMP), spec)
        if missing:
            raise InvalidArgument(
                f"mounts: the checkpointed container had mounts at {', '.join(missing)}: add them to the pod"
            )

    async def images(self, container: Container) -> Path:
        """The directory of CRIU's images. Raises: NotFound, InvalidArgument."""
        directory = await self._directory(container) / IMAGES_DIRECTORY
        await trio.to_thread.run_sync(check_images, directory)
        return directory

    async def remove_files(self, container: Container) -> None:
        """Free what only the restore needed. Idempotent."""
        await trio.to_thread.run_sync(files.remove_tree, self._layout.restore(container.id))

    async def drop_files(self, container: Container) -> None:
        """`remove_files` of a container that runs: a failure is logged."""
        try:
            await self.remove_files(container)
        except NodedError as error:
            log.warning("checkpoint not removed yet", id=container.id, error=str(error))

    async def _directory(self, container: Container) -> Path:
        if container.record.restore.startswith("/"):
            return self._layout.restore(container.id)
        image = self._images.get(container.record.restore)
        if image is None:
            raise NotFound(
                f"checkpoint image {container.record.restore} was removed before the container started: "
                "pull it and create the container again"
            )
        return await trio.to_thread.run_sync(self._tree, image)

    def _tree(self, image: Image) -> Path:
        """The layer of an image that has the checkpoint."""
        for tree in lower_trees(self._layers, lower_chain(self._layers, image)):
            if _is_file(tree / CONFIG_DUMP):
                return tree
        raise NotFound(f"image {image.id} is marked as a checkpoint, but has no {CONFIG_DUMP}")


def restored_pid(container: Container) -> int:
    """Pid of a container that was restored just before the daemon died, 0 when it is not known."""
    return read_pid_file(container.ref.bundle / PID_FILE) or 0


def _member(directory: Path, name: str) -> bytes:
    data = files.read_beneath(directory, name, MEMBER_LIMIT_BYTES)
    if data is None:
        raise NotFound(f"the checkpoint is not complete: it has no {name}")
    return data


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _remove_beneath(root: Path, path: str) -> None:
    """Remove a file or tree of a container, whose directories may be links inside its root."""
    parent, _, name = path.strip("/").rpartition("/")
    try:
        directory = files.open_beneath(root, parent or ".")
    except (NotFound, FailedPrecondition):
        return
    try:
        files.remove_tree(Path(f"/proc/self/fd/{directory}") / name)
    finally:
        os.close(directory)
