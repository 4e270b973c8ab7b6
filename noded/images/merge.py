"""The one tree that a stack of layers means, for storage drivers that do not mount an overlay.

The rules are overlayfs' own: of each name the uppermost entry counts, directories are merged until one
is opaque, a whiteout hides the name. Layer trees hold hostile names and links, so every step goes by
descriptor and follows no link; they do not change meanwhile. Contents are cloned where the file system
can (FICLONE), and copied without their holes elsewhere.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from noded.host import libc
from noded.images.filesystem import OPEN_DIRECTORY
from noded.images.inherit import is_opaque

_FICLONE = 0x40049409
_COPY_BYTES = 1 << 26
_NO_CLONE = (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM)
_NO_COPY = (errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_OVERLAY_XATTR = "trusted.overlay."


def merge_layers(trees: Sequence[Path], target: Path, check: Callable[[], object]) -> bool:
    """Copy what a stack of layer trees shows into `target`, an empty directory; top layer first.

    Args:
        check: called for each directory; what it raises ends the work, the caller removes the target.

    Returns: whether all contents could be cloned, so that they take no room of their own.
    Raises: ResourceExhausted... by errno.
    """
    if not trees:
        return True
    tops = []
    try:
        for tree in (*trees, target):
            tops.append(os.open(tree, OPEN_DIRECTORY))
        merge = _Merge(tops[:-1], tops[-1])
        merge.run(check)
        return merge.cloned
    except OSError as error:
        raise libc.os_error(error, f"cannot copy the layers of an image to {target}") from None
    finally:
        for top in tops:
            os.close(top)


class _Merge:
    def __init__(self, tops: Sequence[int], target: int) -> None:
        self.cloned = True
        self._tops, self._target = tops, target
        self._links: dict[tuple[int, int], bytes] = {}  # (layer, inode) -> where it is in the target

    def run(self, check: Callable[[], object]) -> None:
        waiting: list[tuple[bytes, tuple[int, ...]]] = [(b".", tuple(range(len(self._tops))))]
        times: list[tuple[bytes, tuple[int, int]]] = []
        while waiting:
            check()
            path, layers = waiting.pop()
            waiting += self._directory(path, layers, times)
        # Last, since every new entry changes them; by path, as open descriptors would be too many.
        for path, when in times:
            os.utime(path, ns=when, dir_fd=self._target)

    def _directory(
        self, path: bytes, layers: Sequence[int], times: list[tuple[bytes, tuple[int, int]]]
    ) -> list[tuple[bytes, tuple[int, ...]]]:
        """Fill one directory of the target; return those in it, with the layers that make them up."""
        sources: list[tuple[int, int]] = []
        out = os.open(path, OPEN_DIRECTORY, dir_fd=self._target)
        try:
            for layer in layers:
                sources.append((layer, os.open(path, OPEN_DIRECTORY, dir_fd=self._tops[layer])))
                if path != b"." and is_opaque(sources[-1][1]):
                    break  # of a root overlayfs ignores it, the caller leaves lower layers out
            found = os.fstat(sources[0][1])
            self._describe(sources[0][1], out, found)
            times.append((path, (found.st_atime_ns, found.st_mtime_ns)))
            return self._entries(path, sources, out)
        finally:
            for _, fd in sources:
                os.close(fd)
            os.close(out)

    def _entries(
        self, path: bytes, sources: Sequence[tuple[int, int]], out: int
    ) -> list[tuple[bytes, tuple[int, ...]]]:
        decided: set[bytes] = set()
        merged: dict[bytes, list[int]] = {}
        for layer, fd in sources:
            here = [os.fsencode(name) for name in os.listdir(fd)]
            for name in here:
                if name in decided:
                    continue
                found = os.stat(name, dir_fd=fd, follow_symlinks=False)
                if stat.S_ISDIR(found.st_mode):
                    if name not in merged:
                        os.mkdir(name, 0o700, dir_fd=out)
                    merged.setdefault(name, []).append(layer)
                    continue
                decided.add(name)  # a file, link or whiteout ends the merging of directories above it
                if name not in merged and not (stat.S_ISCHR(found.st_mode) and found.st_rdev == 0):
                    self._entry(layer, fd, out, path, name, found)
        prefix = b"" if path == b"." else path + b"/"
        return [(prefix + name, tuple(layers)) for name, layers in merged.items()]

    def _entry(self, layer: int, fd: int, out: int, path: bytes, name: bytes, found: os.stat_result) -> None:
        if found.st_nlink > 1:
            first = self._links.setdefault((layer, found.st_ino), path + b"/" + name)
            if first != path + b"/" + name:
                os.link(first, name, src_dir_fd=self._target, dst_dir_fd=out, follow_symlinks=False)
                return
        if stat.S_ISREG(found.st_mode):
            self._file(fd, out, name, found)
            return
        if stat.S_ISLNK(found.st_mode):
            os.symlink(os.readlink(name, dir_fd=fd), name, dir_fd=out)
        else:
            os.mknod(name, found.st_mode, found.st_rdev, dir_fd=out)
        os.chown(name, found.st_uid, found.st_gid, dir_fd=out, follow_symlinks=False)
        if not stat.S_ISLNK(found.st_mode):
            os.chmod(name, stat.S_IMODE(found.st_mode), dir_fd=out)
        source, copy = (b"/proc/self/fd/%d/%s" % (one, name) for one in (fd, out))
        for xattr in os.listxattr(source, follow_symlinks=False):
            if not xattr.startswith(_OVERLAY_XATTR):
                value = os.getxattr(source, xattr, follow_symlinks=False)
                os.setxattr(copy, xattr, value, follow_symlinks=False)
        os.utime(name, ns=(found.st_atime_ns, found.st_mtime_ns), dir_fd=out, follow_symlinks=False)

    def _file(self, fd: int, out: int, name: bytes, found: os.stat_result) -> None:
        flags = os.O_NOFOLLOW | os.O_CLOEXEC
        source = os.open(name, os.O_RDONLY | flags, dir_fd=fd)
        try:
            copy = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | flags, 0o600, dir_fd=out)
            try:
                if found.st_size:
                    self.cloned &= _contents(source, copy, found.st_size)
                self._describe(source, copy, found)
                os.utime(copy, ns=(found.st_atime_ns, found.st_mtime_ns))
            finally:
                os.close(copy)
        finally:
            os.close(source)

    def _describe(self, source: int, copy: int, found: os.stat_result) -> None:
        os.fchown(copy, found.st_uid, found.st_gid)
        os.fchmod(copy, stat.S_IMODE(found.st_mode))  # after the owner, whose change drops set-id bits
        for name in os.listxattr(source):
            if not name.startswith(_OVERLAY_XATTR):
                os.setxattr(copy, name, os.getxattr(source, name))


def _contents(source: int, copy: int, size_bytes: int) -> bool:
    """Whether the contents were cloned and not copied."""
    try:
        fcntl.ioctl(copy, _FICLONE, source)
        return True
    except OSError as error:
        if error.errno not in _NO_CLONE:
            raise
    os.ftruncate(copy, size_bytes)
    at = 0
    while at < size_bytes:
        try:
            at = os.lseek(source, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                break
            raise
        end = os.lseek(source, at, os.SEEK_HOLE)
        _copy(source, copy, at, end)
        at = end
    return False


def _copy(source: int, copy: int, at: int, end: int) -> None:
    while at < end:
        wanted = min(end - at, _COPY_BYTES)
        try:
            done = os.copy_file_range(source, copy, wanted, at, at)
        except OSError as error:
            if error.errno not in _NO_COPY:
                raise
            done = os.pwrite(copy, os.pread(source, min(wanted, 1 << 20), at), at)
        if not done:
            return
        at += done
