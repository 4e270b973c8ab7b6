"""Mounting image layers as an overlay: writable below a container, read-only as a volume."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from noded.errors import FailedPrecondition, NodedError, Unimplemented
from noded.host import files, mount_fd, mounts, userns
from noded.images.layer_record import LayerRecord
from noded.model.image import Image
from noded.model.pod import UserNamespace

# mount(2) reads one page of options.
_OPTIONS_LIMIT_BYTES = os.sysconf("SC_PAGE_SIZE") - 1
# overlayfs' syntax; paths with these go through links instead.
_SPECIAL = frozenset(":,\\\"'")


@dataclass(frozen=True, slots=True)
class Writable:
    """The directories of a writable overlay, both of the same parent."""

    upper: Path
    work: Path


class Trees(Protocol):
    """Complete layers: of the local store, or of additional ones too."""

    directory: Path

    def has(self, chain_id: str) -> bool: ...
    def record(self, chain_id: str) -> LayerRecord: ...
    def tree(self, chain_id: str) -> Path: ...


def lower_chain(layers: Trees, image: Image) -> list[str]:
    """Chain IDs of the layers to mount, top to bottom.

    Raises: FailedPrecondition naming a layer that is missing.
    """
    chain = []
    for chain_id in reversed(image.chain_ids):
        if not layers.has(chain_id):
            missing = next(layer.diff_id for layer in image.layers if layer.chain_id == chain_id)
            raise FailedPrecondition(
                f"image {image.id} is incomplete, pull it again: layer {missing} is missing"
            )
        chain.append(chain_id)
        if layers.record(chain_id).opaque_root:
            break
    return chain


def lower_trees(layers: Trees, chain: Sequence[str], directory: Path | None = None) -> list[Path]:
    """The trees of a chain, below another mount of the layers directory if one is given.

    Raises: FailedPrecondition when one is not there but in an additional image store.
    """
    trees, ours = [layers.tree(layer) for layer in chain], layers.directory
    if directory is None:
        return trees
    for tree in trees:
        if not tree.is_relative_to(ours):
            raise FailedPrecondition(
                f"pods with a user namespace cannot use {tree}, which is in an additional image store: "
                "pull the image to this node under another name"
            )
    return [directory / tree.relative_to(ours) for tree in trees]


@contextmanager
def mapped_layers(layers: Trees, mapping: UserNamespace, target: Path) -> Iterator[None]:
    """Show all layers at `target`, with the owners that a pod's user namespace gives them.

    overlayfs keeps private copies of the mounts it was made from, so this one goes at the end.

    Raises: FailedPrecondition when the kernel cannot do it.
    """
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    mounts.unmount(target, detach=True)  # of an earlier, interrupted attempt
    try:
        with userns.open_mapped_userns(mapping.uids, mapping.gids) as fd:
            mounts.idmap_bind(layers.directory, target, fd)
            yield
    except Unimplemented as error:
        raise FailedPrecondition(
            f"pods with a user namespace need idmapped mounts below overlayfs (Linux 5.19): {error}"
        ) from None
    finally:
        mounts.unmount(target, detach=True)
    target.rmdir()


def mount_overlay(
    target: Path, lowers: Sequence[Path], scratch: Path, writable: Writable | None, mount_label: str = ""
) -> None:
    """Mount `lowers`, top first.

    Full paths where they fit, since people read the mount table. Else links with short names, reached
    by a descriptor; beyond some 180 of those, the mount call that takes them one by one (Linux 6.7).

    Args:
        scratch: an existing directory of the caller's; `lower` in it is for the links.
        writable: None = read-only, which takes two lowers at least.
        mount_label: SELinux label of all files.

    Raises: FailedPrecondition when the kernel cannot stack so many; by errno.
    """
    flags = ["index=off"]
    if writable is not None:
        # No container survives its node's reboot, so neither must what it wrote into its own layer.
        # Without this, unmounting one writes back the whole file system below (kernel overlayfs.rst).
        flags.append("volatile")
    if mount_label:
        flags.append(f'context="{mount_label}"')
    count = len(lowers)
    pairs = [] if writable is None else [("upperdir", str(writable.upper)), ("workdir", str(writable.work))]
    paths = [*map(str, lowers), *(value for _, value in pairs)]
    plain = _options([str(lower) for lower in lowers], pairs, flags)
    if len(os.fsencode(plain)) <= _OPTIONS_LIMIT_BYTES and not any(_SPECIAL & set(path) for path in paths):
        _mount(target, plain, count, writable)
        return
    links = scratch / "lower"
    files.remove_tree(links)
    links.mkdir(mode=0o700)
    for index, path in enumerate(paths):
        (links / str(index)).symlink_to(path)
    fd = os.open(links, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        short = [f"/proc/self/fd/{fd}/{index}" for index in range(len(paths))]
        pairs = [(name, short[count + index]) for index, (name, _) in enumerate(pairs)]
        options = _options(short[:count], pairs, flags)
        if len(options) <= _OPTIONS_LIMIT_BYTES:
            _mount(target, options, count, writable)
        else:
            _mount_one_by_one(target, short[:count], pairs, flags, writable)
    finally:
        os.close(fd)


def _mount_one_by_one(
    target: Path,
    lowers: Sequence[str],
    pairs: Sequence[tuple[str, str]],
    flags: Sequence[str],
    writable: Writable | None,
) -> None:
    options: list[tuple[str, str | None]] = [("lowerdir+", lower) for lower in lowers]
    options += pairs
    for flag in flags:
        name, _, value = flag.partition("=")
        options.append((name, value.strip('"') or None))
    attributes = mount_fd.MOUNT_ATTR_RDONLY if writable is None else 0
    try:
        mounts.mount_filesystem("overlay", target, "overlay", options, attributes)
    except NodedError as error:
        raise FailedPrecondition(
            f"an image of {len(lowers)} layers needs Linux 6.7 or later to be mounted: {error}"
        ) from None


def _mount(target: Path, options: str, count: int, writable: Writable | None) -> None:
    try:
        mounts.mount("overlay", target, "overlay", mounts.MS_RDONLY if writable is None else 0, options)
    except NodedError as error:
        error.add_note(f"overlay of {count} layers; `dmesg` may say more")
        raise


def _options(lowers: Sequence[str], pairs: Sequence[tuple[str, str]], flags: Sequence[str]) -> str:
    own = (f"{name}={value}" for name, value in (("lowerdir", ":".join(lowers)), *pairs))
    return ",".join((*own, *flags))
