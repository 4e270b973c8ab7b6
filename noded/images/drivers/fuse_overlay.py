"""fuse-overlayfs(1): an overlay in user space, for kernels and file systems that overlayfs cannot use.

Each mount has a process of its own, which outlives the daemon as the mount does. When it dies, every
access fails with ENOTCONN until the container is made again.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from noded.errors import FailedPrecondition, Unavailable
from noded.images.overlay import Writable

_PROGRAM = "fuse-overlayfs"
_MOUNT_SECONDS = 30.0
_SPECIAL = frozenset(":,\\")
_MESSAGES = "fuse-overlayfs.log"


def check_fuse() -> None:
    """Raises: FailedPrecondition naming what the node lacks."""
    if shutil.which(_PROGRAM) is None:
        raise FailedPrecondition(f"install {_PROGRAM}: storage_driver = {_PROGRAM!r} needs it")
    if not Path("/dev/fuse").exists():
        raise FailedPrecondition("load the kernel module fuse: there is no /dev/fuse")


def fuse_stack(
    target: Path, lowers: Sequence[Path], scratch: Path, writable: Writable | None, mount_label: str = ""
) -> None:
    """Mount layers by fuse-overlayfs(1), whose process lives as long as the mount.

    Raises: FailedPrecondition for an SELinux label or a path it cannot take; Unavailable with its words.
    """
    if mount_label:
        raise FailedPrecondition(f"{_PROGRAM} sets no SELinux labels: use storage_driver = 'overlay'")
    paths = [*lowers, *((writable.upper, writable.work) if writable else ())]
    for path in paths:
        if _SPECIAL & set(str(path)):
            raise FailedPrecondition(f"{_PROGRAM} cannot use {path}: a path must not have ':', ',' or '\\'")
    options = ["lowerdir=" + ":".join(map(str, lowers))]
    options += [f"upperdir={writable.upper}", f"workdir={writable.work}"] if writable else ["ro"]
    messages = scratch / _MESSAGES
    try:
        with messages.open("wb") as log:
            result = subprocess.run(
                [_PROGRAM, "-o", ",".join(options), str(target)],
                cwd="/",
                stdin=subprocess.DEVNULL,
                # A file: the process that stays would keep a pipe open, and its reader waiting.
                stdout=subprocess.DEVNULL,
                stderr=log,
                timeout=_MOUNT_SECONDS,
                check=False,
            )
    except FileNotFoundError:
        raise FailedPrecondition(f"install {_PROGRAM}: this container's storage needs it") from None
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{_PROGRAM} did not mount {target} within {_MOUNT_SECONDS:g} s") from None
    if result.returncode:
        words = messages.read_text(errors="replace").strip()[-1000:]
        raise Unavailable(f"{_PROGRAM} cannot mount {target}: {words or f'exit code {result.returncode}'}")
