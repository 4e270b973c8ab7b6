"""Small file systems in loop files, for what depends on the kind of file system."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_MEGABYTES = {"btrfs": 256, "xfs": 320, "ext4": 128}  # xfs takes no smaller one


@contextmanager
def loop_mounted(image: Path, target: Path, size_bytes: int, *mkfs: str) -> Iterator[Path]:
    """A fresh file system in a file, mounted at a directory. `mkfs`: the command that makes it."""
    with image.open("wb") as file:
        file.truncate(size_bytes)
    subprocess.run([*mkfs, "-q", image], check=True, capture_output=True)
    target.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop", image, target], check=True)
    try:
        yield target
    finally:
        subprocess.run(["umount", "--lazy", target], check=True)
        image.unlink()


@contextmanager
def mounted_disk(kind: str, directory: Path) -> Iterator[Path]:
    """A fresh file system of this kind, mounted below `directory`. Skips the test where it cannot be."""
    if f"\t{kind}\n" not in Path("/proc/filesystems").read_text():
        pytest.skip(f"THIS KERNEL HAS NO {kind}: nothing about it was tested")
    if shutil.which(f"mkfs.{kind}") is None:
        pytest.skip(f"mkfs.{kind} is not installed: nothing about {kind} was tested")
    image, size_bytes = directory / f"{kind}.img", _MEGABYTES[kind] << 20
    with loop_mounted(image, directory / kind, size_bytes, f"mkfs.{kind}") as target:
        yield target
