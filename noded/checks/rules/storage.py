"""Disks: where images, writable layers and sockets are kept."""

from __future__ import annotations

from collections.abc import Iterator

from noded.checks.facts import Directory, Facts
from noded.checks.result import Result, fail, ok, warn

_GIB = 1 << 30
# kubelet evicts at 15 % free of the image file system and 5 % of its inodes (KubeletConfiguration).
_EVICTION, _EVICTION_INODES = 0.15, 0.05
_LEAST_BYTES = 1 * _GIB
_REMOTE = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "virtiofs", "fuse", "fuseblk"})


def judge(facts: Facts) -> Iterator[Result]:
    """Overlay-ability, space, inodes, and that state is volatile."""
    root, state = facts.root, facts.state
    yield _overlay(root)
    if root.d_type is False:
        yield fail(
            "storage.d_type",
            f"{root.fstype} on {root.path} does not tell the type of directory entries",
            "overlayfs then shows removed files as character devices",
            f"make the file system anew with d_type (mkfs.xfs -n ftype=1), or move {root.key}",
        )
    if root.read_only:
        yield fail(
            "storage.writable",
            f"{root.path} is on a read-only file system",
            "images and the database are written there",
            f"mount it writable, or set {root.key} in /etc/noded/noded.toml",
        )
    yield from _space(root, "storage")
    if facts.images is not None:
        yield from _images(facts.images)
    if state.fstype == "tmpfs":
        yield ok("storage.state", f"{state.path} is on a tmpfs")
    else:
        yield warn(
            "storage.state",
            f"{state.path} is on {state.fstype or 'an unknown file system'}, not on a tmpfs",
            "what describes running pods outlives a reboot, which ends the pods",
            f"set {state.key} in /etc/noded/noded.toml to a directory below /run",
        )
    for directory in (root, state):
        if directory.mode is not None and (directory.mode & 0o022 or directory.owner != 0):
            yield fail(
                f"storage.{directory.key}_mode",
                f"{directory.path} can be changed by others than root (mode {directory.mode:04o})",
                "whoever writes there decides what runs as root",
                f"chown root: {directory.path}; chmod 711 {directory.path}",
            )


def _overlay(root: Directory) -> Result:
    name = "storage.overlay"
    if root.overlay_problem is None:
        if root.fstype in _REMOTE | {"overlay"}:
            return fail(
                name,
                f"{root.path} is on {root.fstype}",
                "overlayfs cannot keep the writable layers of containers there",
                f"set {root.key} in /etc/noded/noded.toml to a directory on ext4, xfs or btrfs",
            )
        return ok(name, f"{root.path} is on {root.fstype or 'an unknown file system'} (not tried: not root)")
    if root.overlay_problem:
        return fail(
            name,
            f"no overlay mount works on {root.path} ({root.fstype}): {root.overlay_problem}",
            "overlayfs keeps the writable layers of containers there",
            f"set {root.key} in /etc/noded/noded.toml to a directory on ext4, xfs or btrfs",
        )
    return ok(name, f"an overlay mount works on {root.path} ({root.fstype})")


def _images(images: Directory) -> Iterator[Result]:
    if images.exists:
        yield from _space(images, "storage.images")
    else:
        yield warn(
            "storage.images",
            f"{images.path} does not exist",
            "if a disk should be mounted there, images will fill another one",
            f"mount it, or correct {images.key} in /etc/noded/noded.toml",
        )


def _space(root: Directory, name: str) -> Iterator[Result]:
    if root.size_bytes:
        share = root.free_bytes / root.size_bytes
        found = f"{root.free_bytes / _GIB:.1f} GiB free of {root.size_bytes / _GIB:.1f} GiB on {root.path}"
        cure = "noded images df; noded images rm IMAGE; or give the file system more room"
        if root.free_bytes < _LEAST_BYTES or share < 0.05:
            yield fail(f"{name}.space", found, "pulls fail, and containers find the disk full", cure)
        elif share < _EVICTION:
            yield warn(f"{name}.space", found, "below 15 % kubelet removes images and evicts pods", cure)
        else:
            yield ok(f"{name}.space", found)
    if root.inodes:
        share = root.free_inodes / root.inodes
        found = f"{root.free_inodes} of {root.inodes} inodes free on {root.path}"
        cure = "noded images df; noded images rm IMAGE; or make the file system anew with more inodes"
        if share < 0.01:
            yield fail(f"{name}.inodes", found, "no file can be made: pulls fail, containers break", cure)
        elif share < _EVICTION_INODES:
            yield warn(f"{name}.inodes", found, "below 5 % kubelet evicts pods", cure)
        else:
            yield ok(f"{name}.inodes", found)
