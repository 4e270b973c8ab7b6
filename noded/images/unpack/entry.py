"""What a tar says about one object. Pure."""

from __future__ import annotations

BLOCK = 512
# Bytes of one extension header or sparse map. Go's reader, and so both peers, allow the same.
MAX_EXTENSION_BYTES = 1 << 20
MAX_SIZE = 1 << 62

REGULAR, HARDLINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = (
    b"0", b"1", b"2", b"3", b"4", b"5", b"6",
)  # fmt: skip

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
