"""Directories: file system, room, and whether an overlay mount works there."""

from __future__ import annotations

import ctypes
import os
import stat
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from noded.checks.facts import Directory
from noded.host.mountinfo import canonical, holder, parse_mountinfo, read_mountinfo

_MOUNT_SECONDS = 10.0
_DT_UNKNOWN = 0
_D_TYPE_OFFSET = 18  # struct dirent of 64-bit Linux: d_ino, d_off, d_reclen, d_type


def look(key: str, path: Path, *, trial: bool) -> Directory:
    """Facts of a directory, or of the first above it that exists.

    Args:
        trial: mount an overlay there, in a mount namespace of its own; needs root.
    """
    place = path
    while not place.is_dir() and place != place.parent:
        place = place.parent
    entry = holder(parse_mountinfo(read_mountinfo()), canonical(place))
    found = Directory(key=key, path=str(path), exists=place == path, fstype=entry.fstype if entry else "")
    with suppress(OSError):
        if found.exists:
            status = path.stat()
            found = replace(found, mode=stat.S_IMODE(status.st_mode), owner=status.st_uid)
        space = os.statvfs(place)
        found = replace(
            found,
            read_only=bool(space.f_flag & os.ST_RDONLY),
            size_bytes=space.f_blocks * space.f_frsize,
            free_bytes=space.f_bavail * space.f_frsize,
            inodes=space.f_files,
            free_inodes=space.f_favail,
        )
    return _tried(found, place) if trial and not found.read_only else found


def _tried(found: Directory, place: Path) -> Directory:
    try:
        with tempfile.TemporaryDirectory(prefix=".noded-check-", dir=place) as name:
            for part in ("lower", "upper", "work", "merged"):
                os.mkdir(os.path.join(name, part))
            return replace(found, d_type=_tells_types(name), overlay_problem=_mount(Path(name)))
    except OSError as error:
        return replace(found, overlay_problem=f"no directory can be made there: {error.strerror}")


def _mount(base: Path) -> str:
    """Mount an overlay in a namespace that ends with unshare(1), and write through it."""
    script = "mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work overlay merged && : >merged/file"
    try:
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", script],
            cwd=base,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_MOUNT_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"mount did not return within {_MOUNT_SECONDS:g} s"
    except OSError as error:
        return f"unshare: {error.strerror}"
    if done.returncode == 0:
        return ""
    return next(iter(done.stderr.strip().splitlines()), f"mount ended with status {done.returncode}")


def _tells_types(directory: str) -> bool | None:
    """Whether readdir(3) says that the directories in it are directories. Python does not show that."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.opendir.restype = libc.readdir.restype = ctypes.c_void_p
    libc.readdir.argtypes = libc.closedir.argtypes = (ctypes.c_void_p,)
    stream = libc.opendir(os.fsencode(directory))
    if not stream:
        return None
    try:
        types = []
        while entry := libc.readdir(stream):
            types.append(ctypes.c_ubyte.from_address(entry + _D_TYPE_OFFSET).value)
        return _DT_UNKNOWN not in types
    finally:
        libc.closedir(stream)
