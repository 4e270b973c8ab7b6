"""Sparse files, of which an archive holds the data and a map: old GNU, and GNU's three PAX forms.

Format: the GNU tar manual, "Storing Sparse Files" and "PAX 0, 0.1, 1".
"""

from __future__ import annotations

from noded.images.unpack.entry import BLOCK, MAX_EXTENSION_BYTES, MAX_SIZE, Entry, Segments
from noded.images.unpack.faults import corrupt, refused
from noded.images.unpack.fields import decimal, number
from noded.images.unpack.pax import Pax
from noded.images.unpack.stream import ByteStream

_PREFIX = b"GNU.sparse."


def read_gnu(entry: Entry, header: bytes, stream: ByteStream) -> None:
    """Fill in what an old GNU header, and the map blocks that follow it in `stream`, say."""
    numbers = [header[386 + 12 * index : 398 + 12 * index] for index in range(8)]
    extended = header[482]
    blocks = 0
    while extended:
        blocks += 1
        if blocks * BLOCK > MAX_EXTENSION_BYTES:
            raise refused(f"its sparse map is longer than {MAX_EXTENSION_BYTES} bytes")
        block = stream.read(BLOCK)
        numbers += [block[12 * index : 12 * index + 12] for index in range(42)]
        extended = block[504]
    used = [number(field) for field in numbers if field[:1] != b"\0"]
    entry.length = number(header[483:495])
    entry.segments = segments(used, entry.length, entry.size)


def read_pax(entry: Entry, pax: Pax, stream: ByteStream) -> None:
    """Fill in what extension records say; those of format 1.0 point to a map in `stream`."""
    if not any(key.startswith(_PREFIX) for key in pax):
        return
    major, minor = pax.get(b"GNU.sparse.major"), pax.get(b"GNU.sparse.minor")
    real = pax.get(b"GNU.sparse.realsize") or pax.get(b"GNU.sparse.size")
    text = pax.get(b"GNU.sparse.map")
    if (major, minor) == (b"1", b"0"):
        table = _table(entry, stream)
    elif text is not None and (major or b"0") == b"0":
        table = [decimal(part) for part in text.split(b",")] if text else []
    elif major is None and real is None:
        return  # a name alone says nothing about the data
    else:
        raise refused("its sparse format is not one of GNU 0.0, 0.1 and 1.0")
    entry.name = pax.get(b"GNU.sparse.name") or entry.name
    entry.length = decimal(real) if real else entry.size
    entry.segments = segments(table, entry.length, entry.size)


def _table(entry: Entry, stream: ByteStream) -> list[int]:
    """The map of format 1.0: decimal lines before the data, padded to a block."""
    data = bytearray()
    lines, wanted = 0, 1
    while lines < wanted:
        if entry.size < BLOCK or len(data) >= MAX_EXTENSION_BYTES:
            raise corrupt("its sparse map is longer than the file or the limit")
        block = stream.read(BLOCK)
        entry.size -= BLOCK
        data += block
        if not lines and b"\n" in block:
            wanted = 1 + 2 * decimal(bytes(data.partition(b"\n")[0]))
        lines += block.count(b"\n")
    return [decimal(line) for line in bytes(data).split(b"\n", wanted)[1:wanted]]


def segments(flat: list[int], length: int, stored: int) -> Segments:
    """Check a sparse map, offset and length in turn, against the file's length and stored bytes."""
    if len(flat) % 2 or not 0 <= length <= MAX_SIZE:
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
