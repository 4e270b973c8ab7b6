"""The connection to the database: one, of one process."""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from pathlib import Path

_HEADER_BYTES = 32  # of the log; without it SQLite takes all that follows for nothing


def connect(path: Path, busy_seconds: float) -> sqlite3.Connection:
    """Open the file, or create it, for this process alone: others find it locked from the first read on.

    So SQLite keeps the index of its log in memory of its own. Otherwise that is a mapped file (NAME-shm), and
    a store to a mapped page ends a process by SIGBUS where the file system has no block left to copy the page
    to (btrfs) or has failed: a full disk would kill the daemon, and its next start, too.

    Args:
        busy_seconds: how long to wait for another program that holds the file.

    Raises: sqlite3.Error. Spec: sqlite.org/wal.html, "Use of WAL Without Shared-Memory".
    """
    _keep_log(path)
    connection = sqlite3.connect(path, timeout=busy_seconds, check_same_thread=False, isolation_level=None)
    connection.execute("PRAGMA locking_mode=EXCLUSIVE")
    return connection


def close(connection: sqlite3.Connection, path: Path) -> None:
    """Close, and leave the log in its place, empty but with its blocks.

    SQLite deletes it when all of it is in the file. On a full disk others would take the blocks, and the next
    run could not note that pods are stopped and removed. Idempotent.
    """
    with suppress(OSError):  # closed before, or no such links on this file system
        os.link(_log(path), _kept(path))
    connection.close()
    _keep_log(path)


def _keep_log(path: Path) -> None:
    """Give a log that was deleted its name again, without what it says: that is in the file."""
    kept = _kept(path)
    with suppress(OSError):
        if _log(path).exists():  # nothing was deleted: it says more than the file
            kept.unlink(missing_ok=True)
            return
        with kept.open("r+b") as log:
            log.write(bytes(_HEADER_BYTES))
            log.flush()
            os.fsync(log.fileno())
        kept.rename(_log(path))


def _log(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _kept(path: Path) -> Path:
    return path.with_name(f"{path.name}-kept")
