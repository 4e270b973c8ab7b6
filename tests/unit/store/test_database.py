"""The database file: schema, transactions, and what its errors say."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import trio
import trio.testing

from noded.errors import DataLoss, FailedPrecondition, Unavailable
from noded.store.database import Database, Migration

FIRST = Migration(1, 1, "0.1", ("CREATE TABLE pods (id TEXT PRIMARY KEY) STRICT",))
SECOND = Migration(2, 2, "0.2", ("ALTER TABLE pods ADD COLUMN name TEXT",))


def use(path, work, migrations=(FIRST,)):
    """Open, run `work(database)`, close; the result."""

    async def main():
        database = await Database.open(path, migrations)
        try:
            return await work(database)
        finally:
            await database.close()

    return trio.run(main)


def insert(identity):
    async def work(database):
        await database.run(lambda sql: sql.execute("INSERT INTO pods (id) VALUES (?)", (identity,)))

    return work


async def ids(database):
    return await database.run(lambda sql: [row[0] for row in sql.execute("SELECT id FROM pods ORDER BY id")])


def test_a_commit_is_there_when_the_file_is_opened_again(tmp_path):
    use(tmp_path / "db", insert("a"))
    assert use(tmp_path / "db", ids) == ["a"]


def test_commits_are_synchronous_and_the_file_is_private(tmp_path):
    async def pragma(database):
        return await database.run(lambda sql: sql.execute("PRAGMA synchronous").fetchone()[0])

    assert use(tmp_path / "db", pragma) == 2  # FULL
    assert (tmp_path / "db").stat().st_mode & 0o777 == 0o600


def test_work_that_fails_leaves_nothing(tmp_path):
    def half(sql):
        sql.execute("INSERT INTO pods (id) VALUES ('half')")
        raise ValueError("told to fail")

    async def work(database):
        with pytest.raises(ValueError, match="told to fail"):
            await database.run(half)
        return await ids(database)

    assert use(tmp_path / "db", work) == []


def test_a_migration_runs_once_and_keeps_the_rows(tmp_path):
    use(tmp_path / "db", insert("a"))
    for _ in range(2):
        assert use(tmp_path / "db", ids, (FIRST, SECOND)) == ["a"]


def test_a_file_that_this_release_cannot_read_names_the_release_that_can(tmp_path):
    use(tmp_path / "db", ids, (FIRST, SECOND))
    with pytest.raises(FailedPrecondition, match=r"install noded 0\.2 or later"):
        use(tmp_path / "db", ids, (FIRST,))


def test_a_newer_file_that_older_readers_understand_is_used(tmp_path):
    readable = Migration(2, 1, "0.2", SECOND.statements)
    use(tmp_path / "db", insert("a"), (FIRST, readable))
    assert use(tmp_path / "db", ids, (FIRST,)) == ["a"]


def test_a_file_that_another_program_holds_is_unavailable_and_names_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr("noded.store.database._BUSY_SECONDS", 0.0)
    use(tmp_path / "db", insert("a"))
    with closing(sqlite3.connect(tmp_path / "db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match=f"holds {tmp_path / 'db'} open"):
            use(tmp_path / "db", insert("b"))
        other.execute("ROLLBACK")
    assert use(tmp_path / "db", insert("b")) is None
    assert use(tmp_path / "db", ids) == ["a", "b"]


def test_nobody_else_gets_at_an_open_file_and_no_part_of_it_is_mapped(tmp_path):
    """A store to a mapped page ends the process where the file system has no block for it."""
    use(tmp_path / "db", insert("a"))
    (tmp_path / "db-shm").write_bytes(b"of an earlier release")

    def look():
        assert sorted(path.name for path in tmp_path.iterdir()) == ["db", "db-wal"]
        with (
            closing(sqlite3.connect(tmp_path / "db", timeout=0)) as other,
            pytest.raises(sqlite3.OperationalError, match="locked"),
        ):
            other.execute("SELECT * FROM pods")
        assert str(tmp_path) not in Path("/proc/self/maps").read_text()

    async def work(database):
        await insert("b")(database)
        await trio.to_thread.run_sync(look)

    use(tmp_path / "db", work)


def test_a_close_keeps_the_blocks_of_the_log_and_nothing_of_what_it_said(tmp_path):
    """On a full disk others would take them, and the next run could not note a removal."""
    log = tmp_path / "db-wal"
    use(tmp_path / "db", insert("a"))
    kept = log.stat()
    assert kept.st_blocks * 512 >= 1 << 20
    assert log.read_bytes()[:32] == bytes(32)
    with closing(sqlite3.connect(f"file:{tmp_path / 'db'}?mode=ro", uri=True)) as other:
        assert other.execute("SELECT id FROM pods").fetchall() == [("a",)]
    use(tmp_path / "db", insert("b"))
    assert log.stat().st_ino == kept.st_ino
    assert use(tmp_path / "db", ids) == ["a", "b"]


@pytest.mark.parametrize("log_is_there", [True, False])
def test_a_kill_amid_a_close_loses_nothing(tmp_path, log_is_there):
    """Either the log is still there, and counts, or all of it is in the file."""
    use(tmp_path / "db", insert("a"))

    async def copy_open_files(database):
        await insert("b")(database)
        for suffix in ("", "-wal"):
            shutil.copy(f"{tmp_path / 'db'}{suffix}", f"{tmp_path / 'copy'}{suffix}")

    use(tmp_path / "db", copy_open_files)
    if log_is_there:
        os.link(tmp_path / "copy-wal", tmp_path / "copy-kept")
        path = tmp_path / "copy"
    else:
        (tmp_path / "copy-wal").rename(tmp_path / "db-kept")  # with its header: older than the file
        (tmp_path / "db-wal").unlink()
        path = tmp_path / "db"
        with closing(sqlite3.connect(path)) as other, other:
            other.execute("DELETE FROM pods WHERE id = 'a'")
    assert use(path, ids) == (["a", "b"] if log_is_there else ["b"])
    assert not path.with_name(f"{path.name}-kept").exists()


@pytest.mark.parametrize("content", [b"this is no database at all, but long enough to be one" * 20])
def test_a_damaged_file_is_data_loss_with_the_way_out(tmp_path, content):
    (tmp_path / "db").write_bytes(content)
    with pytest.raises(DataLoss, match="move it away"):
        use(tmp_path / "db", ids)


def test_a_file_damaged_while_in_use_is_data_loss(tmp_path):
    use(tmp_path / "db", insert("a"))
    data = bytearray((tmp_path / "db").read_bytes())
    data[100:] = b"\xff" * (len(data) - 100)
    (tmp_path / "db").write_bytes(bytes(data))
    with pytest.raises(DataLoss, match="is damaged"):
        use(tmp_path / "db", insert("b"))


def test_what_is_asked_at_once_is_committed_at_once_and_each_ends_by_itself(tmp_path):
    """One transaction for the writer that came first, one for all that waited for it."""
    commits = []

    async def work(database):
        database._connection.set_trace_callback(
            lambda statement: commits.append(statement) if statement.startswith("COMMIT") else None
        )
        refused = []

        async def add(identity):
            try:
                await insert(identity)(database)
            except sqlite3.IntegrityError as error:
                refused.append((identity, str(error)))

        async def told_to_fail():
            def half(sql):
                sql.execute("INSERT INTO pods (id) VALUES ('half')")
                raise ValueError("told to fail")

            with pytest.raises(ValueError, match="told to fail"):
                await database.run(half)

        async with trio.open_nursery() as nursery:
            for identity in ("a", "b", "c"):
                nursery.start_soon(add, identity)
            nursery.start_soon(told_to_fail)
        await add("b")
        return await ids(database), refused

    found, refused = use(tmp_path / "db", work)
    assert found == ["a", "b", "c"]
    assert refused == [("b", "UNIQUE constraint failed: pods.id")]
    assert len(commits) <= 2 + 1  # the last one reads


def test_a_batch_with_work_that_the_database_refuses_is_done_one_by_one(tmp_path):
    async def work(database):
        ends = {}

        async def run(name, statement):
            try:
                await database.run(lambda sql: sql.execute(statement))
                ends[name] = "done"
            except sqlite3.OperationalError as error:
                ends[name] = str(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, "first", "INSERT INTO pods (id) VALUES ('a')")
            nursery.start_soon(run, "second", "INSERT INTO pods (id) VALUES ('b')")
            nursery.start_soon(run, "bad", "INSERT INTO nowhere VALUES (1)")
        return ends, await ids(database)

    ends, found = use(tmp_path / "db", work)
    assert ends == {"first": "done", "second": "done", "bad": "no such table: nowhere"}
    assert found == ["a", "b"]


def test_one_who_gives_up_while_waiting_is_done_all_the_same(tmp_path):
    async def work(database):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(insert("a"), database)
            nursery.start_soon(insert("b"), database)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        return await ids(database)

    assert use(tmp_path / "db", work) == ["a", "b"]
