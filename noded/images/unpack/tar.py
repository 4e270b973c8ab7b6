"""Reading tar headers: v7, ustar, star, GNU and PAX, with both kinds of sparse files. Pure.

Formats: POSIX pax(1) "ustar Interchange Format" and "pax Interchange Format"; the GNU tar manual,
"Basic Tar Format". The reader yields one `Entry` per object; the caller consumes exactly `entry.size`
bytes of the stream before it asks for the next one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from noded.images.unpack import sparse
from noded.images.unpack.entry import (
    BLOCK,
    BLOCK_DEVICE,
    CHARACTER,
    DIRECTORY,
    FIFO,
    HARDLINK,
    MAX_EXTENSION_BYTES,
    MAX_SIZE,
    REGULAR,
    SYMLINK,
    Entry,
)
from noded.images.unpack.faults import LayerFault, corrupt, refused
from noded.images.unpack.fields import (
    check_sum,
    decimal,
    mode_and_owner,
    number,
    parse_time,
    seconds,
    user_or_group,
)
from noded.images.unpack.limits import UnpackLimits
from noded.images.unpack.pax import Pax, parse_pax
from noded.images.unpack.stream import ByteStream

_FIELDS = struct.Struct("100s 24s 12s 12s 8x c")  # name, mode with owner, size, time, type
_LINK, _MAJOR, _MINOR = slice(157, 257), slice(329, 337), slice(337, 345)
_PREFIX_AT = 345
_ZERO_BLOCK = bytes(BLOCK)
# '\0' is v7's regular file and '7' a contiguous file; both are plain files to everybody today.
_PLAIN_FILES = (b"\0", REGULAR)
_KINDS = {
    **dict.fromkeys((*_PLAIN_FILES, b"7", b"S"), REGULAR),
    **{kind: kind for kind in (HARDLINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO)},
}
_PAX_LOCAL = (b"x", b"X")
_PAX_GLOBAL = b"g"
_GNU_LONG_NAME, _GNU_LONG_LINK, _GNU_SPARSE, _GNU_VOLUME = b"L", b"K", b"S", b"V"
_XATTR_PREFIX = b"SCHILY.xattr."


class TarReader:
    """Iterates over the entries of a stream.

    Raises (from iteration): LayerFault naming the entry.
    """

    def __init__(self, stream: ByteStream, limits: UnpackLimits) -> None:
        self._stream = stream
        self._limits = limits
        self._headers = 0
        self._pax_global: Pax = {}

    def __iter__(self) -> Iterator[Entry]:
        while (entry := self._next()) is not None:
            yield entry
            padding = -entry.size % BLOCK
            if padding:
                self._stream.skip(padding)

    def _next(self) -> Entry | None:
        header = self._header()
        if header is None:
            return None
        if header[156:157] in _KINDS:
            return self._entry(header, self._pax_global, b"", b"")
        return self._extended(header)

    def _extended(self, first: bytes) -> Entry | None:
        """The entry after extension headers, of which this is the first."""
        header: bytes | None = first
        pax: Pax = {}
        name = link = b""
        extended = False
        while header is not None:
            kind = header[156:157]
            if kind in _PAX_LOCAL:
                pax = _joined(pax, parse_pax(self._extension(header)))
                extended = True
            elif kind == _PAX_GLOBAL:
                self._pax_global = _joined(self._pax_global, parse_pax(self._extension(header)))
            elif kind == _GNU_LONG_NAME:
                name = self._extension(header).partition(b"\0")[0]
                extended = True
            elif kind == _GNU_LONG_LINK:
                link = self._extension(header).partition(b"\0")[0]
                extended = True
            elif kind != _GNU_VOLUME:
                return self._entry(header, {**self._pax_global, **pax}, name, link)
            header = self._header()
        if extended:
            raise corrupt("the archive ends after an extension header")
        return None

    def _header(self) -> bytes | None:
        """The next header block, None at the end of the archive."""
        stream = self._stream
        if stream.at_end():
            return None
        header = stream.read(BLOCK)
        if header == _ZERO_BLOCK:
            if not stream.at_end() and stream.read(BLOCK) != _ZERO_BLOCK:
                raise corrupt("a block of zeros is followed by more headers")
            return None
        self._headers += 1
        if self._headers > self._limits.max_entries:
            raise refused(f"it has more than {self._limits.max_entries} entries")
        check_sum(header)
        return header

    def _extension(self, header: bytes) -> bytes:
        size = number(header[124:136])
        if not 0 <= size <= MAX_EXTENSION_BYTES:
            raise refused(f"an extension header has {size} bytes, more than {MAX_EXTENSION_BYTES}")
        data = self._stream.read(size)
        self._stream.skip(-size % BLOCK)
        return data

    def _entry(self, header: bytes, pax: Pax, long_name: bytes, long_link: bytes) -> Entry:
        raw_name, owner, size, mtime, flag = _FIELDS.unpack_from(header)
        name = raw_name.partition(b"\0")[0]
        if header[_PREFIX_AT]:
            name = _with_prefix(header, name)
        kind = _KINDS.get(flag, b"")
        entry = Entry(long_name or pax.get(b"path", b"") or name, kind)
        try:
            if not kind:
                raise refused(f"its type {flag!r} is not one that a layer may have")
            if pax:
                _fill_from_pax(entry, owner, mtime, pax)
            else:
                entry.mode, entry.uid, entry.gid = mode_and_owner(owner)
                entry.mtime_ns = seconds(number(mtime))
            if kind == REGULAR:
                self._regular(entry, flag, size, header, pax)
            elif kind in (HARDLINK, SYMLINK):
                entry.link = long_link or pax.get(b"linkpath", b"") or header[_LINK].partition(b"\0")[0]
            elif kind in (CHARACTER, BLOCK_DEVICE):
                entry.device = number(header[_MAJOR]), number(header[_MINOR])
            if b"\0" in entry.name or b"\0" in entry.link:
                raise corrupt("its name or link target has a zero byte")
            longest = self._limits.max_path_bytes
            if len(entry.name) > longest or len(entry.link) > longest:
                raise refused(f"its name or link target is longer than {longest} bytes")
        except LayerFault as fault:
            fault.entry = fault.entry or entry.name
            raise
        return entry

    def _regular(self, entry: Entry, flag: bytes, size: bytes, header: bytes, pax: Pax) -> None:
        digits = pax.get(b"size")
        entry.size = entry.length = decimal(digits) if digits else number(size)
        if not 0 <= entry.size <= MAX_SIZE:
            raise corrupt(f"its size {entry.size} is impossible")
        if not entry.size and entry.name.endswith(b"/") and flag in _PLAIN_FILES:
            entry.kind = DIRECTORY  # how v7 writes directories
        elif flag == _GNU_SPARSE:
            sparse.read_gnu(entry, header, self._stream)
        elif pax:
            sparse.read_pax(entry, pax, self._stream)


def _joined(pax: Pax, more: Pax) -> Pax:
    """Records of one extension header after those of others, which together are bounded like one."""
    joined = {**pax, **more}
    if sum(len(key) + len(value) for key, value in joined.items()) > MAX_EXTENSION_BYTES:
        raise refused(f"its extension headers have more than {MAX_EXTENSION_BYTES} bytes together")
    return joined


def _with_prefix(header: bytes, name: bytes) -> bytes:
    """A name that was too long for its field."""
    magic, trailer = header[257:263], header[508:512]
    if magic != b"ustar\0":
        return name
    length = 131 if trailer == b"tar\0" else 155  # star keeps times after 131 bytes
    prefix = header[_PREFIX_AT : _PREFIX_AT + length].partition(b"\0")[0]
    return prefix + b"/" + name


def _fill_from_pax(entry: Entry, owner: bytes, mtime: bytes, pax: Pax) -> None:
    """What extension records say comes before the header, which need not be able to say it."""
    uid, gid, modified, accessed = (pax.get(key) for key in (b"uid", b"gid", b"mtime", b"atime"))
    entry.mode = number(owner[:8]) & 0o7777
    entry.uid = user_or_group(decimal(uid) if uid else number(owner[8:16]))
    entry.gid = user_or_group(decimal(gid) if gid else number(owner[16:]))
    entry.mtime_ns = parse_time(modified) if modified else seconds(number(mtime))
    entry.atime_ns = parse_time(accessed) if accessed else None
    skip = len(_XATTR_PREFIX)
    entry.xattrs = {
        key[skip:]: value for key, value in pax.items() if key.startswith(_XATTR_PREFIX) and value
    }
