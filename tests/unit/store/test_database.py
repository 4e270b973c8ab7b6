"""The database file: schema, transactions, and what its errors say."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
import trio

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


def test_a_file_that_another_program_holds_is_unavailable_and_names_the_file(tmp_path):
    use(tmp_path / "db", insert("a"))
    with closing(sqlite3.connect(tmp_path / "db", isolation_level=None)) as other:

        async def work(database):
            await database.run(lambda sql: sql.execute("SELECT 1"))
            other.execute("BEGIN IMMEDIATE")
            # The connection's own patience is 5 s; the test need not wait for it.
            database._connection.execute("PRAGMA busy_timeout=0")
            with pytest.raises(Unavailable, match=f"holds {tmp_path / 'db'} open"):
                await insert("b")(database)
            other.execute("ROLLBACK")
            await insert("b")(database)
            return await ids(database)

        assert use(tmp_path / "db", work) == ["a", "b"]


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
