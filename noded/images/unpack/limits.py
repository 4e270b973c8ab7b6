"""What a layer may ask for, and what came of it."""

from __future__ import annotations

import os
from typing import NamedTuple

GIB = 1 << 30
_FEWEST_WORKERS = 4


class UnpackLimits(NamedTuple):
    """Bounds for one layer. The defaults are far above real images and far below a full node.

    Args:
        max_entries: tar headers of any kind, extension headers included. Real layers stay below 500,000.
        max_bytes: sum of the lengths of all files (holes included), and of the tar stream.
        max_path_bytes: length of a name or link target; the kernel's own limit is 4095.
        max_ratio: uncompressed / compressed bytes, looked at once the stream is longer than
            `ratio_free_bytes`. deflate reaches 1032 on zeros, so only zstd can go above this.
        in_place: the destination is a whole root file system, not one layer: whiteouts remove.
        memory_bytes: address space of the child (RLIMIT_AS). zstd --long=27 needs 128 MiB.
    """

    max_entries: int = 2_000_000
    max_bytes: int = 256 * GIB
    max_path_bytes: int = 4095
    max_ratio: int = 1100
    ratio_free_bytes: int = GIB
    memory_bytes: int = GIB
    in_place: bool = False


class UnpackReport(NamedTuple):
    """The result of extracting one layer.

    Args:
        diff_id: digest of the whole uncompressed stream (`sha256:...`).
        entries: file system objects that the tar named.
        stream_bytes, blob_bytes: length of the tar stream and of the compressed blob.
        used_bytes, used_inodes: what the tree occupies on disk.
        length_bytes: of all its files; a hard link adds nothing.
        opaque: directories that hide those of lower layers, as paths without leading slash, "" is
            the root. The caller sets `trusted.overlay.opaque`.
        implied: directories that hold entries but have none themselves (or had their own entry
            replaced), parents first. Their metadata is the lower layers' business.
        skipped_devices: device nodes that the kernel did not let us make.
        dropped_xattrs: extended attributes that layers may not set, or the file system cannot hold.
    """

    diff_id: str
    entries: int
    stream_bytes: int
    blob_bytes: int
    used_bytes: int
    used_inodes: int
    length_bytes: int = 0
    opaque: tuple[str, ...] = ()
    implied: tuple[str, ...] = ()
    skipped_devices: int = 0
    dropped_xattrs: int = 0


def worker_count(configured: int) -> int:
    """How many layers are extracted at once; 0 = as many as this process has CPUs, at least 4.

    Workers wait for the network and for the disk, too.
    """
    return configured or max(_FEWEST_WORKERS, len(os.sched_getaffinity(0)))
