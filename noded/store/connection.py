"""The connection to the database: one, of one process."""

from __future__ import annotations

import sqlite3
from pathlib import Path


def connect(path: Path, busy_seconds: float) -> sqlite3.Connection:
    """Open the file, or create it, for this process alone: others find it locked from the first read on.

    So SQLite keeps the index of its log in memory of its own. Otherwise that is a mapped file (NAME-shm), and
    a store to a mapped page ends a process by SIGBUS where the file system has no block left to copy the page
    to (btrfs) or has failed: a full disk would kill the daemon, and its next start, too.

    Args:
        busy_seconds: how long to wait for another program that holds the file.

    Raises: sqlite3.Error. Spec: sqlite.org/wal.html, "Use of WAL Without Shared-Memory".
    """
    connection = sqlite3.connect(path, timeout=busy_seconds, check_same_thread=False, isolation_level=None)
    connection.execute("PRAGMA locking_mode=EXCLUSIVE")
    return connection
