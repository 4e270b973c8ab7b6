"""One SQLite file, one writer thread.

Theory of operation. All statements run in a single worker thread, one after another, so there is
never a lock conflict and the event loop never waits for the disk. WAL with synchronous=FULL makes
a returned commit survive power loss. Each migration records the oldest reader that still
understands the file; an older noded refuses to open it and names the version to install.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import trio

from noded.errors import FailedPrecondition

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema.

    Args:
        version: position, from 1, without gaps.
        oldest_reader: the lowest schema version whose code can still use the file afterwards.
        noded_version: the noded release that brought this step, named in the refusal.
        statements: SQL, run in one transaction.
    """

    version: int
    oldest_reader: int
    noded_version: str
    statements: tuple[str, ...]


class Database:
    """An open database; `run` executes a function on the connection in the writer thread."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._limiter = trio.CapacityLimiter(1)

    @classmethod
    async def open(cls, path: Path, migrations: Sequence[Migration]) -> Database:
        """Open or create the file and bring its schema up to date.

        Raises: FailedPrecondition when a newer noded wrote a schema this one cannot read.
        """
        connection = await trio.to_thread.run_sync(_open, path, migrations)
        return cls(connection)

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in one transaction: committed and durable at return, rolled back on error.

        Cancellation: waits for the statement in progress; a cancelled caller's work is either
        fully committed or not started.
        """

        def transaction() -> T:
            with self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                return work(self._connection)

        return await trio.to_thread.run_sync(transaction, limiter=self._limiter)

    async def close(self) -> None:
        """Checkpoint and close. Idempotent."""
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._connection.close, limiter=self._limiter)


def _open(path: Path, migrations: Sequence[Migration]) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    path.chmod(0o600)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    try:
        _migrate(connection, path, migrations)
    except BaseException:
        connection.close()
        raise
    return connection


def _migrate(connection: sqlite3.Connection, path: Path, migrations: Sequence[Migration]) -> None:
    connection.execute(
        "CREATE TABLE IF NOT EXISTS migrations ("
        " version INTEGER PRIMARY KEY, oldest_reader INTEGER NOT NULL, noded_version TEXT NOT NULL) STRICT"
    )
    rows = connection.execute("SELECT version, oldest_reader, noded_version FROM migrations").fetchall()
    newest = migrations[-1].version if migrations else 0
    for version, oldest_reader, noded_version in rows:
        if version > newest and oldest_reader > newest:
            raise FailedPrecondition(
                f"{path} was written by a newer noded: install noded {noded_version} or later, "
                f"or move the file away to start empty (schema {version}, this noded reads up to {newest})"
            )
    applied = {row[0] for row in rows}
    for migration in migrations:
        if migration.version in applied:
            continue
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            for statement in migration.statements:
                connection.execute(statement)
            connection.execute(
                "INSERT INTO migrations VALUES (?, ?, ?)",
                (migration.version, migration.oldest_reader, migration.noded_version),
            )
