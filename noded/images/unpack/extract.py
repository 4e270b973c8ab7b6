"""Applying the entries of one layer to the root directory of this process.

Theory of operation. The process is chrooted into the destination, so a path can point anywhere and
still stays inside; what is checked here is that a layer says what it means, not that it is harmless.
What the tree is made of is told in `tree.py`.

Spec: image-spec layer.md.
"""

from __future__ import annotations

import os
import stat

from noded.images.unpack.compression import LayerStream
from noded.images.unpack.entry import (
    BLOCK_DEVICE,
    CHARACTER,
    DIRECTORY,
    FIFO,
    HARDLINK,
    REGULAR,
    SYMLINK,
    Entry,
)
from noded.images.unpack.faults import LayerFault, refused
from noded.images.unpack.limits import UnpackLimits, UnpackReport
from noded.images.unpack.metadata import SET_ID_BITS, Metadata
from noded.images.unpack.stream import ByteStream
from noded.images.unpack.tar import TarReader
from noded.images.unpack.tree import BLOCK_BYTES, WHITEOUT_DEVICE, Tree, system_fault
from noded.images.unpack.writeback import WRITEBACK_BYTES, start_writeback

WHITEOUT_PREFIX = b".wh."
AUFS_PREFIX = b".wh..wh."
OPAQUE_MARKER = b".wh..wh..opq"
_PLAIN_BITS = ~SET_ID_BITS
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def clean(name: bytes) -> bytes:
    """`name` relative to the root, without empty and "." components; b"" is the root itself.

    Raises: LayerFault for "..": no tool writes it into a layer, and readers disagree about it.
    """
    if b"/." not in name and b"//" not in name and not name.startswith((b"/", b".")) and name[-1:] != b"/":
        return name
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
        self._tree = Tree(in_place=limits.in_place)
        self._known = self._tree.known
        self._entries = 0
        self._length = 0
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
        self._block_bytes = os.statvfs(b".").f_frsize
        self._metadata = Metadata()

    def run(self) -> UnpackReport:
        """Extract everything.

        Raises: LayerFault naming the entry.
        """
        last = b""
        try:
            for entry in TarReader(self._stream, self._limits):
                last = entry.name
                try:
                    self._apply(entry)
                except LayerFault as fault:
                    fault.entry = fault.entry or last
                    raise
                except OSError as error:
                    raise system_fault(error, last) from None
            self._source.drain()
        except LayerFault as fault:
            if not fault.entry:  # a header that is not good enough to have a name, or what follows the last
                fault.entry, fault.after = last, True
            raise
        self._tree.finish(self._metadata)
        return UnpackReport(
            diff_id=self._source.diff_id,
            entries=self._entries,
            stream_bytes=self._source.stream_bytes,
            blob_bytes=self._source.blob_bytes,
            used_bytes=self._tree.used_bytes,
            used_inodes=self._tree.inodes,
            length_bytes=self._tree.length_bytes,
            opaque=tuple(map(os.fsdecode, self._tree.opaque)),
            implied=tuple(map(os.fsdecode, self._tree.implied)),
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
            self._tree.ensure_directory(parent)
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
            fd = os.open(path, _CREATE, mode & _PLAIN_BITS)
        except FileExistsError:
            self._tree.clear(path)
            fd = os.open(path, _CREATE, mode & _PLAIN_BITS)
        try:
            self._tree.inodes += 1
            self._tree.length_bytes += entry.length
            if entry.segments is None:
                self._copy(fd, entry.size)
                # As the kernel would say: blocks are reserved, not allocated yet. stat(2) takes Python long.
                self._tree.used_bytes += entry.size + -entry.size % self._block_bytes
            else:
                os.ftruncate(fd, entry.length)
                for offset, size in entry.segments:
                    os.lseek(fd, offset, os.SEEK_SET)
                    self._copy(fd, size)
                self._tree.used_bytes += os.fstat(fd).st_blocks * BLOCK_BYTES
            self._metadata.set_open_file(fd, entry)
        finally:
            os.close(fd)

    def _copy(self, fd: int, size: int) -> None:
        piece = self._stream.piece
        dirty = 0
        while size:
            data = piece(size)
            size -= len(data)
            dirty += len(data)
            written = os.write(fd, data)
            while written < len(data):
                data = data[written:]
                written = os.write(fd, data)
            if dirty >= WRITEBACK_BYTES:
                start_writeback(fd)
                dirty = 0

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
            self._tree.clear(path)
            os.link(target, path, follow_symlinks=False)
        self._metadata.set_link(path, entry, found)

    def _symlink(self, path: bytes, entry: Entry) -> None:
        if not entry.link:
            raise refused("it is a symbolic link without target")
        try:
            os.symlink(entry.link, path)
        except FileExistsError:
            self._tree.clear(path)
            os.symlink(entry.link, path)
        self._tree.inodes += 1
        self._metadata.set_symlink(path, entry)
        if len(entry.link) > 59:  # longer targets do not fit into an ext4 inode
            self._tree.used_bytes += os.lstat(path).st_blocks * BLOCK_BYTES

    def _device(self, path: bytes, entry: Entry) -> None:
        device = os.makedev(*entry.device) if max(entry.device) < 1 << 20 and min(entry.device) >= 0 else None
        if device is None:
            raise refused(f"its device number {entry.device[0]}:{entry.device[1]} is not valid")
        if entry.kind == CHARACTER and device == WHITEOUT_DEVICE:
            self._tree.whiteout(path)  # what overlayfs would take it for
            return
        kind = stat.S_IFCHR if entry.kind == CHARACTER else stat.S_IFBLK
        try:
            self._tree.node(path, kind | entry.mode, device)
        except PermissionError:
            self._skipped_devices += 1  # no CAP_MKNOD here (a user namespace): peers leave them out too
            return
        self._metadata.set_node(path, entry)

    def _fifo(self, path: bytes, entry: Entry) -> None:
        self._tree.node(path, stat.S_IFIFO | entry.mode, 0)
        self._metadata.set_node(path, entry)

    def _directory(self, path: bytes, entry: Entry) -> None:
        if path:
            self._tree.make_directory(path, 0o700)
        self._tree.implied.pop(path, None)
        self._tree.directories[path] = entry

    # Whiteouts

    def _aufs(self, entry: Entry, parent: bytes, base: bytes) -> None:
        if base == OPAQUE_MARKER and b"/.wh." not in b"/" + parent:
            self._tree.ensure_directory(parent)
            if self._limits.in_place:
                self._tree.empty(parent)
            self._tree.report(self._tree.opaque, os.path.realpath(b"/" + parent)[1:])
        elif base.startswith(AUFS_PREFIX) or b"/" + AUFS_PREFIX in b"/" + parent:
            self._stream.skip(entry.size)  # aufs' own bookkeeping, which says nothing about the image
            return
        elif b"/.wh." in b"/" + parent:
            raise refused("it lies below a whiteout")
        else:
            name = base[len(WHITEOUT_PREFIX) :]
            if name in (b"", b".", b".."):
                raise refused("it is a whiteout of no name")
            self._tree.ensure_directory(parent)
            self._tree.whiteout(parent + b"/" + name if parent else name)
        self._stream.skip(entry.size)
