"""The commit record of a layer: what is known of it, and the proof that it is complete."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import structlog

from noded.errors import InvalidArgument
from noded.wire import digest as digests

log = structlog.get_logger(__name__)

RECORD = "record.json"
TREE = "fs"
OWN_INODES, OWN_BYTES = 2, 8192  # the layer's directory and its record, on any usual file system


@dataclass(frozen=True, slots=True)
class LayerRecord:
    """What is known of a complete layer.

    Args:
        opaque_root: the layer hides everything below it. overlayfs ignores the attribute on a root,
            so whoever mounts must leave out the lower layers.
        used_bytes, used_inodes: on disk, with the layer's own directory and record.
        length_bytes: of the tree's files, -1 in records that say nothing of it.
    """

    chain_id: str
    diff_id: str
    blob_digest: str
    entries: int
    used_bytes: int
    used_inodes: int
    opaque_root: bool = False
    length_bytes: int = -1


def home_name(chain_id: str) -> str:
    """The directory name of a layer; only digests become paths."""
    digests.parse(chain_id)
    return digests.encoded(chain_id)


def read_records(directory: Path) -> Iterator[LayerRecord]:
    """The commit records of a layers directory; one that cannot be read is logged and passed over."""
    names = {field.name for field in fields(LayerRecord)}
    for home in directory.iterdir():
        try:
            stored = json.loads((home / RECORD).read_bytes())
            record = LayerRecord(**{name: value for name, value in stored.items() if name in names})
            if home_name(record.chain_id) == home.name and (home / TREE).is_dir():
                yield record
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError, TypeError, AttributeError, InvalidArgument) as error:
            log.warning("layer record unreadable", path=str(home), error=str(error))
