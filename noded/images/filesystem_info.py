"""What images and writable layers take on their file systems."""

from __future__ import annotations

import os
import time
from pathlib import Path

import trio

from noded.images.content import ContentStore
from noded.images.layers import LayerStore
from noded.images.usage import WritableLayers
from noded.model.image import FilesystemInfo, Usage
from noded.model.paths import Layout


class DiskUse:
    """Of the local store, and of all containers."""

    def __init__(self, content: ContentStore, layers: LayerStore, layout: Layout) -> None:
        self._content, self._layers, self._layout = content, layers, layout
        self._writable = WritableLayers(layout.root / "containers")

    async def measure(self) -> FilesystemInfo:
        """Exact disk use: blobs and layers; the writable layers as of at most 30 s ago.

        Spec: CRI v1 `ImageFsInfo`. Both parts name the same mount point unless they are on different
        file systems: kubelet takes different ones for a split image file system.
        """
        blob_bytes, blob_inodes = await trio.to_thread.run_sync(self._content.usage)
        layer_bytes, layer_inodes = self._layers.usage()
        writable = await self._writable.measure()
        image_at, container_at = await trio.to_thread.run_sync(mount_points, self._layout)
        image = Usage(image_at, blob_bytes + layer_bytes, blob_inodes + layer_inodes, time.time_ns())
        container = Usage(container_at, writable.used_bytes, writable.used_inodes, writable.measured_at_ns)
        return FilesystemInfo(image, container)


def mount_points(layout: Layout) -> tuple[str, str]:
    image, container = layout.layers, layout.root / "containers"
    if _device(image) == _device(container):
        return str(layout.root), str(layout.root)
    return str(image), str(container)


def _device(path: Path) -> int:
    try:
        return os.stat(path).st_dev
    except FileNotFoundError:
        return os.stat(path.parent).st_dev
