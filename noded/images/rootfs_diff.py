"""What a container has written, as a tar, and what it has removed of its image. Blocking.

The tree is read by descriptors that follow no link: whoever can write into the container's root file
system meanwhile cannot make files of the host part of the tar.
"""

from __future__ import annotations

import errno
import os
import stat
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import trio

from noded.errors import FailedPrecondition
from noded.host import beneath, libc
from noded.images.interruptible import InterruptibleReader

_WHITEOUT = os.makedev(0, 0)
_OPAQUE = "trusted.overlay.opaque"
# Attributes of overlayfs itself; a file with one of the others is not all there (redirect_dir, metacopy).
_OVERLAY = "trusted.overlay."
_HARMLESS = frozenset(("trusted.overlay.opaque", "trusted.overlay.origin", "trusted.overlay.impure"))
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def write_diff(upper: Path, lowers: Sequence[Path], target: IO[bytes]) -> list[str]:
    """Write the upper directory of an overlay to `target` as a tar.

    Returns: paths, relative to the root, of what is hidden of the lower directories.
    Raises: FailedPrecondition for a tree that cannot be told in a tar; NodedError by errno.
    Cancellation: at any time, from a trio thread.
    """
    deleted: list[str] = []
    try:
        with tarfile.open(fileobj=target, mode="w|", format=tarfile.PAX_FORMAT) as tar:
            _Walk(tar, upper, lowers, deleted).run()
    except OSError as error:
        raise libc.os_error(error, f"cannot read {upper}") from None
    return deleted


class _Walk:
    def __init__(self, tar: tarfile.TarFile, upper: Path, lowers: Sequence[Path], deleted: list[str]) -> None:
        self._tar = tar
        self._upper = upper
        self._lowers = lowers
        self._deleted = deleted
        self._links: dict[int, str] = {}  # inode -> first name

    def run(self) -> None:
        for path, directories, names, fd in os.fwalk(self._upper, follow_symlinks=False):
            trio.from_thread.check_cancelled()
            place = os.path.relpath(path, self._upper)
            place = "" if place == "." else f"{place}/"
            for name in sorted((*directories, *names)):
                self._entry(fd, name, f"{place}{name}")

    def _entry(self, directory: int, name: str, path: str) -> None:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if stat.S_ISCHR(found.st_mode) and found.st_rdev == _WHITEOUT:
            self._deleted.append(path)
            return
        if stat.S_ISSOCK(found.st_mode):
            return  # a tar has none; it is made anew by whoever listens
        info = self._info(found, path)
        if stat.S_ISLNK(found.st_mode):
            info.linkname = os.readlink(name, dir_fd=directory)
        if info.type in (tarfile.LNKTYPE, tarfile.SYMTYPE) or not _openable(found.st_mode):
            self._tar.addfile(info)
            return
        fd = os.open(name, _OPEN, dir_fd=directory)
        try:
            if not os.path.samestat(os.fstat(fd), found):
                raise OSError(errno.EAGAIN, f"{path} was replaced meanwhile")
            opaque = self._attributes(fd, info, path)
            if info.isreg():
                with open(fd, "rb", closefd=False) as file:
                    self._tar.addfile(info, InterruptibleReader(file))
            else:
                self._tar.addfile(info)
        finally:
            os.close(fd)
        if opaque:
            self._deleted.extend(f"{path}/{one}" for one in self._hidden(path))

    def _info(self, found: os.stat_result, path: str) -> tarfile.TarInfo:
        info = tarfile.TarInfo(path)
        info.mode = stat.S_IMODE(found.st_mode)
        info.uid, info.gid = found.st_uid, found.st_gid
        info.mtime = found.st_mtime_ns // 1_000_000_000
        info.type = _TYPES[stat.S_IFMT(found.st_mode)]
        if info.type in (tarfile.CHRTYPE, tarfile.BLKTYPE):
            info.devmajor, info.devminor = os.major(found.st_rdev), os.minor(found.st_rdev)
        if info.isreg():
            first = self._links.setdefault(found.st_ino, path) if found.st_nlink > 1 else path
            if first == path:
                info.size = found.st_size
            else:
                info.type, info.linkname = tarfile.LNKTYPE, first
        return info

    def _attributes(self, fd: int, info: tarfile.TarInfo, path: str) -> bool:
        """Take over extended attributes; tell whether the directory hides what is below it."""
        headers = {}
        opaque = False
        for name in os.listxattr(fd):
            if name.startswith(_OVERLAY):
                opaque = opaque or (name == _OPAQUE and os.getxattr(fd, name) == b"y")
                if name not in _HARMLESS:
                    raise FailedPrecondition(
                        f"cannot save the files of the container: {path} has the attribute {name}, "
                        "so its data is elsewhere; turn redirect_dir and metacopy of overlayfs off"
                    )
            elif not name.startswith("security.selinux"):
                headers[f"SCHILY.xattr.{name}"] = os.getxattr(fd, name).decode("utf-8", "surrogateescape")
        info.pax_headers = headers
        return opaque

    def _hidden(self, path: str) -> list[str]:
        """Names of the lower directories that an opaque one hides and does not have itself."""
        names: set[str] = set()
        for lower in self._lowers:
            place = _directory(lower, path)
            if place is not None:
                names.update(os.listdir(place))
        own = _directory(self._upper, path)
        return sorted(names.difference(os.listdir(own) if own is not None else ()))


_TYPES = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}


def _openable(mode: int) -> bool:
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def _directory(root: Path, path: str) -> Path | None:
    """A directory of a tree, None when there is none; no component is a link."""
    top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flags = os.O_PATH | os.O_DIRECTORY
        fd = beneath.openat2(
            top, os.fsencode(path), flags, beneath.RESOLVE_BENEATH | beneath.RESOLVE_NO_SYMLINKS
        )
        os.close(fd)
        return root / path
    except OSError:
        return None
    finally:
        os.close(top)
