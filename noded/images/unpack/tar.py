"""Reading tar headers: v7, ustar, star, GNU and PAX, with both kinds of sparse files. Pure.

Formats: POSIX pax(1) "ustar Interchange Format" and "pax Interchange Format"; the GNU tar manual,
"Basic Tar Format", "Storing Sparse Files" and "PAX 0, 0.1, 1". The reader yields one `Entry` per object;
the caller consumes exactly `entry.size` bytes of the stream before it asks for the next one.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from noded.images.unpack.faults import LayerFault, corrupt, refused
from noded.images.unpack.limits import UnpackLimits
from noded.images.unpack.stream import ByteStream

BLOCK = 512
REGULAR, HARDLINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = (
    b"0", b"1", b"2", b"3", b"4", b"5", b"6",
)  # fmt: skip

# Bytes of one extension header or sparse map. Go's reader, and so both peers, allow the same.
MAX_EXTENSION_BYTES = 1 << 20

_HEADER = struct.Struct("100s 8s 8s 8s 12s 12s 8s c 100s 6s 2s 64x 8s 8s 155s 8x 4s")
_ZERO_BLOCK = bytes(BLOCK)
_ADLER_MODULUS = 65521
_NS = 1_000_000_000
_WITHOUT_DATA = frozenset((HARDLINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO))
# '\0' is v7's regular file and '7' a contiguous file; both are plain files to everybody today.
_KINDS = {b"\0": REGULAR, b"7": REGULAR, b"S": REGULAR, **{kind: kind for kind in (REGULAR, *_WITHOUT_DATA)}}
_PAX_LOCAL = frozenset((b"x", b"X"))
_PAX_GLOBAL = b"g"
_GNU_LONG_NAME, _GNU_LONG_LINK, _GNU_SPARSE, _GNU_VOLUME = b"L", b"K", b"S", b"V"
_XATTR_PREFIX = b"SCHILY.xattr."
_SPARSE_PREFIX = b"GNU.sparse."
_MAX_ID = 0xFFFFFFFE  # (uid_t)-1 means "leave it" to chown(2)
_MAX_SIZE = 1 << 62
_MAX_SECONDS = 1 << 40  # 36,812 years: file systems clamp long before

_Pax = dict[bytes, bytes]
Segments = tuple[tuple[int, int], ...]


class Entry:
    """One object of the archive.

    Args:
        name: as written, not cleaned.
        kind: one of REGULAR ... FIFO.
        size: bytes of data that follow in the stream (0 unless REGULAR).
        length: length of the file; differs from `size` when `segments` is set.
        segments: (offset, length) of each piece of data of a sparse file, ascending; None otherwise.
        atime_ns: None when the archive does not say.
    """

    __slots__ = (
        "atime_ns", "device", "gid", "kind", "length", "link", "mode", "mtime_ns", "name", "segments",
        "size", "uid", "xattrs",
    )  # fmt: skip

    def __init__(self, name: bytes, kind: bytes) -> None:
        self.name = name
        self.kind = kind
        self.mode = 0
        self.uid = 0
        self.gid = 0
        self.size = 0
        self.length = 0
        self.mtime_ns = 0
        self.atime_ns: int | None = None
        self.link = b""
        self.device = (0, 0)
        self.segments: Segments | None = None
        self.xattrs: dict[bytes, bytes] = {}


class TarReader:
    """Iterates over the entries of a stream.

    Raises (from iteration): LayerFault naming the entry.
    """

    def __init__(self, stream: ByteStream, limits: UnpackLimits) -> None:
        self._stream = stream
        self._limits = limits
        self._headers = 0
        self._pax_global: _Pax = {}

    def __iter__(self) -> Iterator[Entry]:
        while (entry := self._next()) is not None:
            yield entry
            padding = -entry.size % BLOCK
            if padding:
                self._stream.skip(padding)

    def _next(self) -> Entry | None:
        pax: _Pax = {}
        name = link = b""
        extended = False
        while True:
            header = self._header()
            if header is None:
                if extended:
                    raise corrupt("the archive ends after an extension header")
                return None
            kind = header[156:157]
            if kind in _PAX_LOCAL:
                pax = {**pax, **parse_pax(self._extension(header))}
            elif kind == _PAX_GLOBAL:
                self._pax_global.update(parse_pax(self._extension(header)))
                continue
            elif kind == _GNU_LONG_NAME:
                name = self._extension(header).partition(b"\0")[0]
            elif kind == _GNU_LONG_LINK:
                link = self._extension(header).partition(b"\0")[0]
            elif kind == _GNU_VOLUME:
                continue
            else:
                break
            extended = True
        if self._pax_global:
            pax = {**self._pax_global, **pax}
        return self._entry(header, pax, name, link)

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

    def _entry(self, header: bytes, pax: _Pax, long_name: bytes, long_link: bytes) -> Entry:
        (
            raw_name, mode, uid, gid, size, mtime, _sum, flag, raw_link, magic, _version, major, minor,
            prefix, trailer,
        ) = _HEADER.unpack(header)  # fmt: skip
        name = raw_name.partition(b"\0")[0]
        if magic == b"ustar\0" and prefix[:1] != b"\0":
            star = trailer == b"tar\0"  # star keeps times after 131 bytes of prefix
            head = (prefix[:131] if star else prefix).partition(b"\0")[0]
            if head:
                name = head + b"/" + name
        name = long_name or pax.get(b"path", b"") or name
        entry = Entry(name, _KINDS.get(flag, b""))
        try:
            self._fill(entry, flag, pax, (mode, uid, gid, size, mtime))
            if entry.kind in (HARDLINK, SYMLINK):
                entry.link = long_link or pax.get(b"linkpath", b"") or raw_link.partition(b"\0")[0]
            elif entry.kind in (CHARACTER, BLOCK_DEVICE):
                entry.device = number(major), number(minor)
            if flag == _GNU_SPARSE:
                self._gnu_sparse(entry, header)
            elif entry.kind == REGULAR and any(key.startswith(_SPARSE_PREFIX) for key in pax):
                self._pax_sparse(entry, pax)
            if b"\0" in entry.name or b"\0" in entry.link:
                raise corrupt("its name or link target has a zero byte")
            if len(entry.name) > self._limits.max_path_bytes or len(entry.link) > self._limits.max_path_bytes:
                raise refused(f"its name or link target is longer than {self._limits.max_path_bytes} bytes")
        except LayerFault as fault:
            fault.entry = fault.entry or entry.name
            raise
        return entry

    def _fill(self, entry: Entry, flag: bytes, pax: _Pax, numbers: tuple[bytes, ...]) -> None:
        mode, uid, gid, size, mtime = numbers
        if not entry.kind:
            raise refused(f"its type {flag!r} is not one that a layer may have")
        entry.mode = number(mode) & 0o7777
        entry.uid = _owner(pax.get(b"uid"), uid)
        entry.gid = _owner(pax.get(b"gid"), gid)
        seconds = pax.get(b"mtime")
        entry.mtime_ns = clamp_seconds(number(mtime)) * _NS if not seconds else parse_time(seconds)
        if pax:
            seconds = pax.get(b"atime")
            entry.atime_ns = parse_time(seconds) if seconds else None
            skip = len(_XATTR_PREFIX)
            entry.xattrs = {
                key[skip:]: value for key, value in pax.items() if key.startswith(_XATTR_PREFIX) and value
            }
        if entry.kind == REGULAR:
            digits = pax.get(b"size")
            entry.size = entry.length = number(size) if not digits else decimal(digits)
            if not 0 <= entry.size <= _MAX_SIZE:
                raise corrupt(f"its size {entry.size} is impossible")
            if entry.name.endswith(b"/") and flag in (b"\0", REGULAR) and not entry.size:
                entry.kind = DIRECTORY  # how v7 writes directories

    def _gnu_sparse(self, entry: Entry, header: bytes) -> None:
        numbers = [header[386 + 12 * index : 398 + 12 * index] for index in range(8)]
        extended = header[482]
        blocks = 0
        while extended:
            blocks += 1
            if blocks * BLOCK > MAX_EXTENSION_BYTES:
                raise refused(f"its sparse map is longer than {MAX_EXTENSION_BYTES} bytes")
            block = self._stream.read(BLOCK)
            numbers += [block[12 * index : 12 * index + 12] for index in range(42)]
            extended = block[504]
        used = [number(field) for field in numbers if field[:1] != b"\0"]
        entry.length = number(header[483:495])
        entry.segments = segments(used, entry.length, entry.size)

    def _pax_sparse(self, entry: Entry, pax: _Pax) -> None:
        major, minor = pax.get(b"GNU.sparse.major"), pax.get(b"GNU.sparse.minor")
        real = pax.get(b"GNU.sparse.realsize") or pax.get(b"GNU.sparse.size")
        text = pax.get(b"GNU.sparse.map")
        if (major, minor) == (b"1", b"0"):
            table = self._sparse_table(entry)
        elif text is not None and (major or b"0") == b"0":
            table = [decimal(part) for part in text.split(b",")] if text else []
        elif major is None and real is None:
            return  # a name alone says nothing about the data
        else:
            raise refused("its sparse format is not one of GNU 0.0, 0.1 and 1.0")
        entry.name = pax.get(b"GNU.sparse.name") or entry.name
        entry.length = decimal(real) if real else entry.size
        entry.segments = segments(table, entry.length, entry.size)

    def _sparse_table(self, entry: Entry) -> list[int]:
        """The map of format 1.0: decimal lines before the data, padded to a block."""
        data = bytearray()
        lines, wanted = 0, 1
        while lines < wanted:
            if entry.size < BLOCK or len(data) >= MAX_EXTENSION_BYTES:
                raise corrupt("its sparse map is longer than the file or the limit")
            block = self._stream.read(BLOCK)
            entry.size -= BLOCK
            data += block
            if not lines and b"\n" in block:
                wanted = 1 + 2 * decimal(bytes(data.partition(b"\n")[0]))
            lines += block.count(b"\n")
        return [decimal(line) for line in bytes(data).split(b"\n", wanted)[1:wanted]]


def check_sum(header: bytes) -> None:
    """Compare a header with its checksum, the sum of its bytes with the checksum field as spaces.

    adler32's low half is that sum + 1, modulo 65521, in C. Ancient tars summed signed bytes: they
    are accepted too, as every reader does.
    """
    field = header[148:156]
    stored = number(field)
    correction = 8 * 0x20 - sum(field)
    unsigned = (zlib.adler32(header) & 0xFFFF) - 1 + correction
    if (stored - unsigned) % _ADLER_MODULUS:
        high = sum(1 for byte in header if byte > 127)
        if stored != sum(header) + correction - 256 * high:
            raise corrupt("a header has a wrong checksum")


def number(field: bytes) -> int:
    """A numeric header field: octal text, or base 256 when the first bit is set (GNU, star)."""
    if field[0] & 0x80:
        bits = 8 * len(field) - 1
        value = int.from_bytes(field, "big") & ((1 << bits) - 1)
        return value - (1 << bits) if value >> (bits - 1) else value
    text = field.partition(b"\0")[0].strip(b" ") or field.strip(b" \0")
    if not text:
        return 0
    if text.isdigit():  # int() alone would take signs, underscores and 0o
        try:
            return int(text, 8)
        except ValueError:
            pass
    raise corrupt(f"a header has {text!r} where an octal number belongs")


def decimal(text: bytes) -> int:
    """An unsigned decimal number of an extension header."""
    if not text.isdigit() or len(text) > 20:
        raise corrupt(f"an extension header has {text[:40]!r} where a decimal number belongs")
    return int(text)


def parse_time(text: bytes) -> int:
    """pax(1) time, seconds with a fraction of any length, in ns; cut towards minus infinity."""
    negative = text.startswith(b"-")
    seconds, _, fraction = text[negative:].partition(b".")
    if not seconds.isdigit() or (fraction and not fraction.isdigit()):
        raise corrupt(f"an extension header has {text[:40]!r} where a time belongs")
    whole = clamp_seconds(int(seconds[:20])) * _NS
    part = int(fraction[:9].ljust(9, b"0"))
    return -whole - part if negative else whole + part


def clamp_seconds(seconds: int) -> int:
    return max(-_MAX_SECONDS, min(seconds, _MAX_SECONDS))


def parse_pax(data: bytes) -> _Pax:
    """The records "LENGTH KEY=VALUE\\n" of an extension header.

    The repeated keys of sparse format 0.0 are joined to the map of format 0.1.
    """
    records: _Pax = {}
    pairs: list[bytes] = []
    position = 0
    while position < len(data):
        space = data.find(b" ", position, position + 21)
        if space < 0:
            if not data[position:].strip(b"\0"):
                break
            raise corrupt("an extension header has a record without length")
        end = position + decimal(data[position:space])
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if end > len(data) or end <= space + 1 or data[end - 1 : end] != b"\n" or not equals or not key:
            raise corrupt("an extension header has a malformed record")
        position = end
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            if (len(pairs) % 2 == 0) != (key == b"GNU.sparse.offset"):
                raise corrupt("a sparse map has its offsets and lengths out of order")
            pairs.append(value)
        else:
            records[key] = value
    if pairs:
        records[b"GNU.sparse.map"] = b",".join(pairs)
    return records


def segments(flat: list[int], length: int, stored: int) -> Segments:
    """Check a sparse map, offset and length in turn, against the file's length and stored bytes."""
    if len(flat) % 2 or not 0 <= length <= _MAX_SIZE:
        raise corrupt("its sparse map is malformed")
    end = total = 0
    pieces = []
    for offset, size in zip(flat[::2], flat[1::2], strict=True):
        if offset < end or size < 0 or offset + size > length:
            raise corrupt("its sparse map is out of order or exceeds the file")
        end = offset + size
        total += size
        if size:
            pieces.append((offset, size))
    if total != stored:
        raise corrupt(f"its sparse map describes {total} bytes, but {stored} are stored")
    return tuple(pieces)


def _owner(text: bytes | None, field: bytes) -> int:
    value = decimal(text) if text else number(field)
    if not 0 <= value <= _MAX_ID:
        raise refused(f"its owner {value} is not a valid id")
    return value
