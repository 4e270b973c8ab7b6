"""The storage drivers by their names in the configuration."""

from __future__ import annotations

from noded.errors import FailedPrecondition
from noded.images.drivers.copies import BtrfsDriver, CopyDriver
from noded.images.drivers.driver import Driver
from noded.images.drivers.fuse_overlay import check_fuse, fuse_stack
from noded.images.drivers.overlay import OverlayDriver
from noded.images.overlay import Trees
from noded.model.paths import Layout


def open_driver(name: str, layout: Layout, layers: Trees) -> Driver:
    """The driver of this name. It may not work here, see `Driver.check`.

    Raises: FailedPrecondition when this version has none of the name.
    """
    if name == "overlay":
        return OverlayDriver(layers)
    if name == "fuse-overlayfs":
        return OverlayDriver(layers, name, fuse_stack, check_fuse)
    if name == "btrfs":
        return BtrfsDriver(layers, layout.root / "containers")
    if name == "vfs":
        return CopyDriver(layers)
    raise FailedPrecondition(f"this version of noded has no storage driver {name!r}")
