"""Tells after a start whether the node lost power, or crashed, while the daemon ran.

A file holds the boot ID of the run; it is emptied at the end of a run, when all is on the disk. A file
with another boot ID than the present one means that the last run ended with its boot. Blocking.
"""

from __future__ import annotations

from pathlib import Path

import structlog

from noded.errors import ResourceExhausted
from noded.host import files
from noded.images.filesystem import sync_filesystem

_log = structlog.get_logger(__name__)

_MAX_BYTES = 128


def begin(path: Path, boot_id: str) -> bool:
    """Mark a run as begun; returns whether the last one ended with a crash of the node."""
    try:
        with path.open("rb") as file:
            last = file.read(_MAX_BYTES).decode(errors="replace").strip()
    except FileNotFoundError:
        last = ""
    if last != boot_id:
        try:
            files.publish(path, f"{boot_id}\n".encode(), 0o600, durable=True)
        except ResourceExhausted as error:  # pods matter more, and there is no room for new layers
            _log.warning("run not marked as begun", path=str(path), error=str(error))
    return last not in ("", boot_id)


def end(path: Path) -> None:
    """Mark the run as ended in order: whatever it wrote is made durable first."""
    sync_filesystem(path.parent)
    files.publish(path, b"", 0o600, durable=True)
