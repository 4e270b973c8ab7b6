"""Directories for the VOLUMEs of images."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import trio

from noded.engine.pod_files import root_of
from noded.host.beneath import exists_beneath
from noded.model.container import Mount
from noded.model.pod import UserNamespace
from noded.spec.inputs import ImageVolume


async def declared_volumes(
    paths: Iterable[str], mounts: Iterable[Mount], rootfs: Path, data: Path, userns: UserNamespace | None
) -> tuple[ImageVolume, ...]:
    """VOLUMEs whose path the image lacks get an empty directory; the others are just there.

    Args:
        paths: the VOLUMEs of the image.
        mounts: of the client; they win.
        data: directory of what belongs to the container.
        userns: whose root owns the directories.

    Raises: OSError. Cancellation: between two directories.
    """
    wanted = {mount.container_path.rstrip("/") for mount in mounts}
    volumes = []

    def make(source: Path) -> None:
        source.mkdir(parents=True, exist_ok=True)
        if userns is not None:
            os.chown(source, root_of(userns.uids), root_of(userns.gids))

    for path in paths:
        if path.rstrip("/") in wanted or await trio.to_thread.run_sync(exists_beneath, rootfs, path):
            continue
        source = volume_directory(data, path)
        await trio.to_thread.run_sync(make, source)
        volumes.append(ImageVolume(path, str(source)))
    return tuple(volumes)


def volume_directory(data: Path, path: str) -> Path:
    """Where a VOLUME of an image is kept that the image has no directory for.

    Args:
        data: directory of what belongs to the container.
    """
    return data / "volumes" / hashlib.sha256(path.encode()).hexdigest()[:16]
