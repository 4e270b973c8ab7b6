"""Root file systems of containers: what their image shows, and what they write.

    root/containers/ID/                       state/containers/ID/   (gone after a reboot)
      driver   the storage driver's name,        rootfs/   mounted by the driver
               where it is not overlay
      ...      what the driver makes

What the container wrote survives a reboot, the mount does not: `prepare` brings it back.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

from noded.errors import FailedPrecondition
from noded.host import files, mounts
from noded.images.drivers.choose import open_driver
from noded.images.drivers.driver import Driver, Rootfs
from noded.images.drivers.overlay import OverlayDriver
from noded.images.overlay import Trees, lower_chain, lower_trees
from noded.images.quota import Quotas
from noded.images.usage import container_usage
from noded.model.image import Image
from noded.model.paths import Layout
from noded.model.pod import UserNamespace

_DRIVER = "driver"


class Snapshots:
    """Root file systems of the containers of one noded instance.

    Args:
        storage_driver: what new containers are made with unless they say; those that exist keep theirs.
        reach: makes sure that an image's layers can be reached, or raises.

    Raises: FailedPrecondition for an unknown driver.
    """

    def __init__(
        self,
        layout: Layout,
        layers: Trees,
        storage_driver: str = "overlay",
        reach: Callable[[Image], Awaitable[None]] | None = None,
    ) -> None:
        self._layout = layout
        self._reach = reach
        self._layers = layers
        self.driver = open_driver(storage_driver, layout, layers)
        self._quotas = Quotas()

    async def prepare(
        self,
        container_id: str,
        image: Image,
        userns: UserNamespace | None,
        *,
        mount_label: str = "",
        quota_bytes: int = 0,
        storage_driver: str = "",
    ) -> None:
        """Make and mount the root file system of a container at `layout.rootfs(container_id)`.

        Idempotent: what is there already is kept, the container's files above all.

        Args:
            userns: mappings of the pod's user namespace, None or empty = none.
            mount_label: SELinux label for all files ("" = the file system's own).
            quota_bytes: what the container may write at most, 0 = no limit.
            storage_driver: what a new container is made with, "" = the configured one.

        Raises: FailedPrecondition when a layer is missing, the kernel cannot map owners, the storage
            driver cannot work here, or the file system has no quotas.
        Cancellation: not while the kernel works; a second call or `remove` continues from there.
        """
        if self._reach is not None:
            await self._reach(image)
        await trio.to_thread.run_sync(
            self._prepare, container_id, image, userns, mount_label, quota_bytes, storage_driver
        )

    async def remount(self, container_id: str, image: Image, userns: UserNamespace | None) -> None:
        """`prepare` by the name of what it does after a reboot."""
        await self.prepare(container_id, image, userns)

    async def remove(self, container_id: str) -> None:
        """Unmount and delete the root file system with all that the container wrote.

        Idempotent, and right when `prepare` never or half ran.
        Cancellation: waits for the work in progress.
        """
        await trio.to_thread.run_sync(self._remove, container_id)

    async def write_diff(self, container_id: str, image: Image, target: Path) -> list[str]:
        """Write what the container has changed to a new tar; return the paths that it has removed.

        Raises: FailedPrecondition where the storage driver does not keep changes apart; see
            `noded.images.rootfs_diff.write_diff`.
        Cancellation: at any time.
        """
        return await trio.to_thread.run_sync(self._write_diff, container_id, image, target)

    def _write_diff(self, container_id: str, image: Image, target: Path) -> list[str]:
        from noded.images.rootfs_diff import write_diff  # for checkpoints, which are rare

        data = self._layout.container_data(container_id)
        driver = self._driver_of(data, "").name
        if driver != "overlay":
            raise FailedPrecondition(
                f"containers on the storage driver {driver!r} cannot be checkpointed: "
                "their own files cannot be told from those of the image"
            )
        lowers = lower_trees(self._layers, lower_chain(self._layers, image))
        with target.open("xb") as file:
            return write_diff(data / "upper", lowers, file)

    async def usage(self, container_id: str) -> tuple[int, int]:
        """(bytes, inodes) of what the container wrote; zeros when there is no such container."""
        return await trio.to_thread.run_sync(container_usage, self._layout.container_data(container_id))

    def mounted(self, container_id: str) -> bool:
        """Whether the root file system is mounted."""
        return mounts.is_mountpoint(self._layout.rootfs(container_id))

    def _prepare(
        self,
        container_id: str,
        image: Image,
        mapping: UserNamespace | None,
        mount_label: str,
        quota_bytes: int,
        storage_driver: str,
    ) -> None:
        target = self._layout.rootfs(container_id)
        if mounts.is_mountpoint(target):
            if _answers(target):
                return
            mounts.unmount(target, detach=True)
        chain = lower_chain(self._layers, image)
        data = self._layout.container_data(container_id)
        if quota_bytes:
            self._quotas.enclose(data)
        else:
            data.mkdir(mode=0o700, parents=True, exist_ok=True)  # holds set-id programs: for root only
        driver = self._driver_of(data, storage_driver)
        target.mkdir(mode=0o755, parents=True, exist_ok=True)
        if mapping is not None and not mapping.uids:
            mapping = None
        bundle = self._layout.bundle(container_id)
        rootfs = Rootfs(target, data, bundle, chain, mapping, mount_label)
        driver.prepare(rootfs, trio.from_thread.check_cancelled)
        if quota_bytes:
            self._quotas.limit(data, quota_bytes)

    def _driver_of(self, data: Path, wanted: str) -> Driver:
        """The driver that a container was made with; for a new one the wanted or the configured one."""
        mark = data / _DRIVER
        try:
            marked = mark.read_text()
        except FileNotFoundError:
            marked = None
        if marked:
            return self._driver(marked)
        # An empty mark, as a power cut left it, was not overlay's: overlay makes none.
        if marked is None and (data / "upper").is_dir():
            return OverlayDriver(self._layers)
        driver = self._driver(wanted)
        driver.check()
        if driver.name != "overlay":  # what it makes is told by its name
            files.publish(mark, driver.name.encode(), 0o600, durable=True)
        return driver

    def _driver(self, name: str) -> Driver:
        if name in ("", self.driver.name):
            return self.driver
        return open_driver(name, self._layout, self._layers)

    def _remove(self, container_id: str) -> None:
        for path in (self._layout.rootfs(container_id), self._layout.bundle(container_id) / "lowers"):
            # Lazily: a process of the host that looks into the tree must not keep the pod.
            mounts.unmount(path, detach=True)
            files.remove_tree(path)
        self._quotas.remove(self._layout.container_data(container_id))


def _answers(target: Path) -> bool:
    """Whether a mounted root file system is alive: a fuse-overlayfs may have died."""
    try:
        target.stat()
    except OSError as error:
        return error.errno != errno.ENOTCONN
    return True
