"""One SQLite file, one writer thread.

Theory of operation. All statements run in a single worker thread, one after another, so there is
never a lock conflict and the event loop never waits for the disk. WAL with synchronous=FULL makes
a returned commit survive power loss. What is asked while the disk is busy shares the next commit: one
flush for all; each fails or succeeds by itself. Each migration records the oldest reader that still
understands the file; an older noded refuses to open it and names the version to install.

A full disk must not keep pods from being stopped and removed, which is what frees it. So some free
pages are kept in the file and as much in its log: what only shrinks the data needs no new block.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import outcome
import trio

from noded.errors import DataLoss, FailedPrecondition, NodedError, ResourceExhausted, Unavailable
from noded.store.connection import close, connect

T = TypeVar("T")

_RESERVE_BYTES = 1 << 20  # a change of one record takes some 20 kB
_RESERVE_ROOM_BYTES = 4 * _RESERVE_BYTES  # once in the log, once in the file, and the drop of it
_CACHE_KIB = 256  # rows are read once, at the start
_BUSY_SECONDS = 5.0
_ROOM_BYTES = 8 << 20  # what must be free for new records


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


class _Job:
    """One transaction that was asked for, and how it ended."""

    def __init__(self, work: Callable[[sqlite3.Connection], object], adds: bool) -> None:
        self.work = work
        self.adds = adds
        self.turn = trio.Event()
        self.outcome: outcome.Outcome[Any] | None = None  # with `turn` set and None: it leads the next batch


class Database:
    """An open database; `run` executes a function on the connection in the writer thread."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
        self._limiter = trio.CapacityLimiter(1)
        self._waiting: list[_Job] = []
        self._busy = False

    @classmethod
    async def open(
        cls, path: Path, migrations: Sequence[Migration], opened: sqlite3.Connection | None = None
    ) -> Database:
        """Open or create the file and bring its schema up to date.

        Args:
            opened: a connection of `noded.store.connection` to take over.

        Raises: FailedPrecondition when a newer noded wrote a schema this one cannot read, else as `run`.
        """
        connection = await trio.to_thread.run_sync(_open, path, migrations, opened)
        return cls(connection, path)

    async def run(self, work: Callable[[sqlite3.Connection], T], *, adds: bool = False) -> T:
        """Run `work` in one transaction: committed and durable at return, rolled back on error.

        Args:
            adds: it makes the data grow, and so must not live on what is kept for removals.

        Raises: what `work` raises; ResourceExhausted on a full disk, Unavailable when the disk fails or
            another program holds the file, DataLoss when the file is damaged.
        Cancellation: waits for the commit in progress and its own; a cancelled caller's work is either
        fully committed or not started.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        job = _Job(work, adds)
        self._waiting.append(job)
        with trio.CancelScope(shield=True):
            if self._busy:
                await job.turn.wait()
            if job.outcome is None:
                await self._lead()
        assert job.outcome is not None
        result: T = job.outcome.unwrap()
        return result

    async def _lead(self) -> None:
        """Have all that waits done at once; the first of those that came meanwhile leads the next batch."""
        self._busy = True
        batch, self._waiting = self._waiting, []
        try:
            await trio.to_thread.run_sync(self._transactions, batch, limiter=self._limiter)
        except Exception as error:  # no thread could be started, say
            for job in batch:
                job.outcome = job.outcome or outcome.Error(error)
        for job in batch:
            job.turn.set()
        self._busy = bool(self._waiting)
        if self._waiting:
            self._waiting[0].turn.set()

    def _transactions(self, batch: Sequence[_Job]) -> None:
        if len(batch) > 1 and self._together(batch):
            return
        for job in batch:
            job.outcome = outcome.capture(self._transaction, job.work, job.adds)

    def _together(self, batch: Sequence[_Job]) -> bool:
        """Do all in one transaction; False when nothing of it was done, for want of room or for a failure."""
        outcomes: list[outcome.Outcome[object]] = []

        def work(connection: sqlite3.Connection) -> None:
            for job in batch:
                connection.execute("SAVEPOINT job")
                try:
                    outcomes.append(outcome.Value(job.work(connection)))
                except sqlite3.OperationalError:
                    raise
                except Exception as error:
                    connection.execute("ROLLBACK TO job")
                    explained = error
                    if isinstance(error, sqlite3.DatabaseError):
                        explained = _explained(error, self._path)
                    outcomes.append(outcome.Error(explained))
                connection.execute("RELEASE job")

        try:
            if any(job.adds for job in batch):
                self._need_room()
            _commit(self._connection, work)
        except (sqlite3.DatabaseError, ResourceExhausted, OSError):
            return False
        for job, ended in zip(batch, outcomes, strict=True):
            job.outcome = ended
        return True

    def _transaction(self, work: Callable[[sqlite3.Connection], T], adds: bool) -> T:
        if adds:
            self._need_room()
        try:
            try:
                return _commit(self._connection, work)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
                    raise
                # What the log holds goes into the file, so that the log's blocks can be written anew.
                self._connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
                return _commit(self._connection, work)
        except sqlite3.DatabaseError as error:
            raise _explained(error, self._path) from error

    def _need_room(self) -> None:
        disk = os.statvfs(self._path)
        if disk.f_bavail * disk.f_frsize < _ROOM_BYTES:
            raise ResourceExhausted(
                f"free space on the file system of {self._path}: less than {_ROOM_BYTES >> 20} MiB are left"
            )

    async def close(self) -> None:
        """Checkpoint and close. Idempotent."""
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(close, self._connection, self._path, limiter=self._limiter)


def _open(
    path: Path, migrations: Sequence[Migration], opened: sqlite3.Connection | None
) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        connection = opened or connect(path, _BUSY_SECONDS)
        try:
            if path.stat().st_mode & 0o777 != 0o600:  # a change needs a block where files are copied on write
                path.chmod(0o600)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA foreign_keys=ON")
            connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
            _migrate(connection, path, migrations)
            _reserve(connection, os.statvfs(path))
            connection.execute("PRAGMA shrink_memory")
            # Of a noded that shared the file. Nobody else has it open, that much the lock says.
            with suppress(OSError):
                path.with_name(f"{path.name}-shm").unlink()
        except BaseException:
            connection.close()
            raise
    except sqlite3.DatabaseError as error:
        raise _explained(error, path) from error
    return connection


def _explained(error: sqlite3.DatabaseError, path: Path) -> NodedError | sqlite3.DatabaseError:
    """The error in an operator's terms; itself when it tells of a defect in noded."""
    kind = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest is detail (sqlite.org/rescode.html)
    if kind == sqlite3.SQLITE_FULL:
        return ResourceExhausted(f"free space on the file system of {path}: {error}")
    if kind in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
        return Unavailable(f"check the file system of {path}: {error} ({error.sqlite_errorname})")
    if kind in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Unavailable(f"end the program that holds {path} open: {error} ({error.sqlite_errorname})")
    if kind in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return DataLoss(
            f"{path} is damaged ({error}): restore it from a backup, or move it away to start without "
            "knowledge of the pods that are on this node"
        )
    return error


def _commit(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        return work(connection)


def _reserve(connection: sqlite3.Connection, disk: os.statvfs_result) -> None:
    """Leave free pages in the file and blocks in the log, where the disk has room for that."""
    with suppress(sqlite3.OperationalError):
        connection.execute("DROP TABLE IF EXISTS reserve")
        if disk.f_bavail * disk.f_frsize < _RESERVE_ROOM_BYTES:  # the table could not be dropped again
            return
        connection.execute("CREATE TABLE reserve AS SELECT zeroblob(?)", (_RESERVE_BYTES,))
        connection.execute("DROP TABLE reserve")
        connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()


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
