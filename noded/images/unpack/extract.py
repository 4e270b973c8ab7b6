"""Applying the entries of one layer to the root directory of this process.

Theory of operation. The process is chrooted into the destination, so a path can point anywhere and
still stays inside; what is checked here is that a layer says what it means, not that it is harmless.
The tree is that of an overlay layer: whiteouts are 0:0 character devices, opaque directories are
reported to the daemon (their attribute needs CAP_SYS_ADMIN).

Directories get their metadata (`metadata.py`) at the end, when nothing is created in them any more; a
directory that was replaced by something else in the meantime is left out.

Spec: image-spec layer.md.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque

from noded.images.unpack.compression import LayerStream
from noded.images.unpack.faults import SYSTEM, LayerFault, refused
from noded.images.unpack.limits import UnpackLimits, UnpackReport
from noded.images.unpack.metadata import SET_ID_BITS, Metadata
from noded.images.unpack.stream import ByteStream
from noded.images.unpack.tar import (
    BLOCK_DEVICE,
    CHARACTER,
    DIRECTORY,
    FIFO,
    HARDLINK,
    REGULAR,
    SYMLINK,
    Entry,
    TarReader,
)

WHITEOUT_PREFIX = b".wh."
AUFS_PREFIX = b".wh..wh."
OPAQUE_MARKER = b".wh..wh..opq"
_WHITEOUT_DEVICE = os.makedev(0, 0)
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_SYMLINKS = 40  # the kernel's own limit (path_resolution(7))
_BLOCK_BYTES = 512  # unit of st_blocks
_IMPLIED_MODE = 0o755
# Report paths are kept in the daemon's memory and in the layer's record.
_MAX_REPORTED_BYTES = 16 << 20


def clean(name: bytes) -> bytes:
    """`name` relative to the root, without empty and "." components; b"" is the root itself.

    Raises: LayerFault for "..": no tool writes it into a layer, and readers disagree about it.
    """
    parts = [part for part in name.split(b"/") if part and part != b"."]
    if b".." in parts:
        raise refused('its path has a ".." component')
    return b"/".join(parts)


class Extractor:
    """Extracts one stream into the current root directory. Use once."""

    def __init__(self, source: LayerStream, limits: UnpackLimits) -> None:
        self._source = source
        self._limits = limits
        self._stream = ByteStream(source.chunk)
        self._known = {b""}  # directories that exist
        self._directories: dict[bytes, Entry] = {}  # whose metadata is still to be set
        self._implied: dict[bytes, None] = {b"": None}
        self._opaque: dict[bytes, None] = {}
        self._reported_bytes = 0
        self._entries = 0
        self._length = 0
        self._inodes = 1
        self._used = 0
        self._skipped_devices = 0
        self._make = {
            REGULAR: self._file,
            HARDLINK: self._hardlink,
            SYMLINK: self._symlink,
            CHARACTER: self._device,
            BLOCK_DEVICE: self._device,
            FIFO: self._fifo,
            DIRECTORY: self._directory,
        }
        os.umask(0)
        self._metadata = Metadata()

    def run(self) -> UnpackReport:
        """Extract everything.

        Raises: LayerFault naming the entry.
        """
        for entry in TarReader(self._stream, self._limits):
            try:
                self._apply(entry)
            except LayerFault as fault:
                fault.entry = fault.entry or entry.name
                raise
            except OSError as error:
                raise _system(error, entry.name) from None
        self._source.drain()
        self._finish_directories()
        return UnpackReport(
            diff_id=self._source.diff_id,
            entries=self._entries,
            stream_bytes=self._source.stream_bytes,
            blob_bytes=self._source.blob_bytes,
            used_bytes=self._used,
            used_inodes=self._inodes,
            opaque=tuple(map(os.fsdecode, self._opaque)),
            implied=tuple(map(os.fsdecode, self._implied)),
            skipped_devices=self._skipped_devices,
            dropped_xattrs=self._metadata.dropped_xattrs,
        )

    def _apply(self, entry: Entry) -> None:
        self._entries += 1
        path = clean(entry.name)
        parent, _, base = path.rpartition(b"/")
        if b".wh." in path and (base.startswith(WHITEOUT_PREFIX) or b"/.wh." in b"/" + parent):
            self._aufs(entry, parent, base)
            return
        if parent not in self._known:
            self._ensure_directory(parent)
        if not path and entry.kind != DIRECTORY:
            raise refused("it replaces the root directory by something else")
        self._make[entry.kind](path, entry)

    # Kinds of entries

    def _file(self, path: bytes, entry: Entry) -> None:
        self._length += entry.length
        if self._length > self._limits.max_bytes:
            raise refused(f"its files are longer than {self._limits.max_bytes} bytes together")
        mode = entry.mode
        try:
            fd = os.open(path, _CREATE, mode & ~SET_ID_BITS)
        except FileExistsError:
            self._clear(path)
            fd = os.open(path, _CREATE, mode & ~SET_ID_BITS)
        try:
            self._inodes += 1
            if entry.segments is None:
                self._copy(fd, entry.size)
            else:
                os.ftruncate(fd, entry.length)
                for offset, size in entry.segments:
                    os.lseek(fd, offset, os.SEEK_SET)
                    self._copy(fd, size)
            self._metadata.set_open_file(fd, entry)
            self._used += os.fstat(fd).st_blocks * _BLOCK_BYTES
        finally:
            os.close(fd)

    def _copy(self, fd: int, size: int) -> None:
        piece = self._stream.piece
        while size:
            data = piece(size)
            size -= len(data)
            written = os.write(fd, data)
            while written < len(data):
                data = data[written:]
                written = os.write(fd, data)

    def _hardlink(self, path: bytes, entry: Entry) -> None:
        target = clean(entry.link)
        if not target:
            raise refused("it is a hard link to the root directory")
        try:
            found = os.lstat(target)
        except (FileNotFoundError, NotADirectoryError):
            name = os.fsdecode(target)
            raise refused(f"it is a hard link to {name!r}, which this layer does not have") from None
        if stat.S_ISDIR(found.st_mode):
            raise refused(f"it is a hard link to the directory {os.fsdecode(target)!r}")
        try:
            os.link(target, path, follow_symlinks=False)
        except FileExistsError:
            if os.path.samestat(os.lstat(path), found):
                return
            self._clear(path)
            os.link(target, path, follow_symlinks=False)
        self._metadata.set_link(path, entry, found)

    def _symlink(self, path: bytes, entry: Entry) -> None:
        if not entry.link:
            raise refused("it is a symbolic link without target")
        try:
            os.symlink(entry.link, path)
        except FileExistsError:
            self._clear(path)
            os.symlink(entry.link, path)
        self._inodes += 1
        self._metadata.set_symlink(path, entry)
        if len(entry.link) > 59:  # longer targets do not fit into an ext4 inode
            self._used += os.lstat(path).st_blocks * _BLOCK_BYTES

    def _device(self, path: bytes, entry: Entry) -> None:
        device = os.makedev(*entry.device) if max(entry.device) < 1 << 20 and min(entry.device) >= 0 else None
        if device is None:
            raise refused(f"its device number {entry.device[0]}:{entry.device[1]} is not valid")
        if entry.kind == CHARACTER and device == _WHITEOUT_DEVICE:
            self._whiteout(path)  # what overlayfs would take it for
            return
        kind = stat.S_IFCHR if entry.kind == CHARACTER else stat.S_IFBLK
        try:
            self._node(path, kind | entry.mode, device)
        except PermissionError:
            self._skipped_devices += 1  # no CAP_MKNOD here (a user namespace): peers leave them out too
            return
        self._metadata.set_node(path, entry)

    def _fifo(self, path: bytes, entry: Entry) -> None:
        self._node(path, stat.S_IFIFO | entry.mode, 0)
        self._metadata.set_node(path, entry)

    def _directory(self, path: bytes, entry: Entry) -> None:
        if path:
            self._make_directory(path, 0o700)
        self._implied.pop(path, None)
        self._directories[path] = entry

    # Whiteouts

    def _aufs(self, entry: Entry, parent: bytes, base: bytes) -> None:
        if base == OPAQUE_MARKER and b"/.wh." not in b"/" + parent:
            self._ensure_directory(parent)
            if self._limits.in_place:
                self._empty(parent)
            self._report(self._opaque, os.path.realpath(b"/" + parent)[1:])
        elif base.startswith(AUFS_PREFIX) or b"/" + AUFS_PREFIX in b"/" + parent:
            self._stream.skip(entry.size)  # aufs' own bookkeeping, which says nothing about the image
            return
        elif b"/.wh." in b"/" + parent:
            raise refused("it lies below a whiteout")
        else:
            name = base[len(WHITEOUT_PREFIX) :]
            if name in (b"", b".", b".."):
                raise refused("it is a whiteout of no name")
            self._ensure_directory(parent)
            self._whiteout(parent + b"/" + name if parent else name)
        self._stream.skip(entry.size)

    def _whiteout(self, path: bytes) -> None:
        """Hide `path` of the lower layers, but not what this layer itself has there."""
        if self._limits.in_place:
            if os.path.lexists(path):
                self._clear(path)
            return
        try:
            os.mknod(path, stat.S_IFCHR, _WHITEOUT_DEVICE)
            self._inodes += 1
        except FileExistsError:
            if stat.S_ISDIR(os.lstat(path).st_mode):
                real = os.path.realpath(b"/" + path)[1:]
                self._report(self._opaque, real)
                self._implied.pop(real, None)

    # Directories and replacement

    def _make_directory(self, path: bytes, mode: int) -> None:
        try:
            os.mkdir(path, mode)
            self._inodes += 1
        except FileExistsError:
            found = os.lstat(path)
            if not stat.S_ISDIR(found.st_mode):
                self._clear(path)
                os.mkdir(path, mode)
                self._inodes += 1
                if _is_whiteout(found):  # hide what is below, then show this
                    self._report(self._opaque, os.path.realpath(b"/" + path)[1:])
        self._known.add(path)

    def _ensure_directory(self, path: bytes) -> None:
        """Make sure that `path` leads to a directory, through symbolic links if need be.

        Missing directories, also those that a link points to, are created and noted as implied.
        """
        if path in self._known:
            return
        try:
            if stat.S_ISDIR(os.stat(path).st_mode):
                self._known.add(path)
                return
        except (FileNotFoundError, NotADirectoryError):
            pass
        waiting = deque(path.split(b"/"))
        here: list[bytes] = []
        links = 0
        while waiting:
            part = waiting.popleft()
            if part in (b"", b"."):
                continue
            if part == b"..":
                del here[-1:]
                continue
            step = b"/".join((*here, part))
            try:
                found = os.lstat(step)
            except FileNotFoundError:
                self._imply(step)
            else:
                if stat.S_ISLNK(found.st_mode):
                    links += 1
                    if links > _MAX_SYMLINKS:
                        raise refused("its path has too many symbolic links")
                    target = os.readlink(step)
                    if target.startswith(b"/"):
                        here.clear()
                    waiting.extendleft(reversed(target.split(b"/")))
                    continue
                if _is_whiteout(found):
                    self._make_directory(step, _IMPLIED_MODE)
                elif not stat.S_ISDIR(found.st_mode):
                    raise refused(f"{os.fsdecode(step)!r} on its path is not a directory")
            here.append(part)
        self._known.add(path)

    def _imply(self, path: bytes) -> None:
        os.mkdir(path, _IMPLIED_MODE)
        self._inodes += 1
        self._known.add(path)
        self._directories.pop(path, None)
        self._report(self._implied, path)

    def _report(self, where: dict[bytes, None], path: bytes) -> None:
        if path in where:
            return
        where[path] = None
        self._reported_bytes += len(path)
        if self._reported_bytes > _MAX_REPORTED_BYTES:
            raise refused("it has too many opaque directories and directories without own entry")

    def _clear(self, path: bytes) -> None:
        """Remove whatever is at `path`, for an entry that replaces it."""
        found = os.lstat(path)
        if not stat.S_ISDIR(found.st_mode):
            self._unlink(path, found)
            return
        self._known = {b""}
        doomed = [path]
        while doomed:
            top = doomed[-1]
            below = []
            with os.scandir(top) as listing:
                for item in listing:
                    if item.is_dir(follow_symlinks=False):
                        below.append(item.path)
                    else:
                        self._unlink(item.path, item.stat(follow_symlinks=False))
            if below:
                doomed += below
            else:
                os.rmdir(top)
                self._inodes -= 1
                for noted in (self._implied, self._opaque):
                    noted.pop(top, None)
                doomed.pop()

    def _empty(self, directory: bytes) -> None:
        with os.scandir(directory or b".") as listing:
            names = [item.name for item in listing]
        for name in names:
            self._clear(directory + b"/" + name if directory else name)

    def _unlink(self, path: bytes, found: os.stat_result) -> None:
        os.unlink(path)
        if found.st_nlink == 1:
            self._inodes -= 1
            if stat.S_ISREG(found.st_mode):
                self._used -= found.st_blocks * _BLOCK_BYTES

    def _node(self, path: bytes, mode: int, device: int) -> None:
        try:
            os.mknod(path, mode, device)
        except FileExistsError:
            self._clear(path)
            os.mknod(path, mode, device)
        self._inodes += 1

    def _finish_directories(self) -> None:
        own = set()
        for path, entry in self._directories.items():
            try:
                fd = os.open(path or b".", _OPEN_DIRECTORY)
            except (FileNotFoundError, NotADirectoryError):
                continue  # replaced by a later entry
            except OSError as error:
                if error.errno == errno.ELOOP:
                    continue
                raise _system(error, path) from None
            try:
                self._metadata.set_directory(fd, entry)
                found = os.fstat(fd)
            except OSError as error:
                raise _system(error, path) from None
            finally:
                os.close(fd)
            own.add(found.st_ino)
            self._used += found.st_blocks * _BLOCK_BYTES
        # A directory made for "link/a" and described as "target/a" is not implied any more.
        for path in list(self._implied):
            found = os.lstat(path or b".")
            if found.st_ino in own:
                del self._implied[path]
            else:
                self._used += found.st_blocks * _BLOCK_BYTES


def _is_whiteout(found: os.stat_result) -> bool:
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == _WHITEOUT_DEVICE


def _system(error: OSError, entry: bytes) -> LayerFault:
    number = error.errno or 0
    return LayerFault(SYSTEM, error.strerror or str(error), entry=entry, number=number)
