"""Reading the rows of lists from a database that nobody has opened yet."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing

import pytest
import trio

from noded.model.container import ContainerConfig, ContainerKey
from noded.model.lifecycle import ContainerIntent, SandboxIntent
from noded.model.pod import PodConfig, SandboxKey
from noded.model.records import ContainerRecord, SandboxRecord
from noded.model.runtime import Exit
from noded.store import glance as module
from noded.store.containers import ContainerRows
from noded.store.database import Database
from noded.store.glance import Glance
from noded.store.sandboxes import SandboxRows
from noded.store.schema import MIGRATIONS

POD = PodConfig(key=SandboxKey("ns", "pod", "uid", 0))
BOX = ContainerConfig(name="main", attempt=0, image="i")


def fill(path, copy_to=None):
    """A sandbox and two containers; `copy_to` gets the files as a killed daemon leaves them."""

    async def main():
        database = await Database.open(path, MIGRATIONS)
        sandboxes = SandboxRows(database, lambda request: POD)
        containers = ContainerRows(database, lambda request: BOX)
        await sandboxes.insert(
            SandboxRecord("p1", POD.key, "kata", b"pod", POD, 5, "boot", SandboxIntent.READY, complete=True)
        )
        for number, exited in enumerate((None, Exit(3, 9))):
            record = ContainerRecord(
                f"c{number}", ContainerKey("p1", f"n{number}", 0), b"box", BOX, 7 + number, "boot",
                ContainerIntent.STARTED, "sha256:x", exited=exited,
            )  # fmt: skip
            await containers.insert(record)
        if copy_to is not None:
            for suffix in ("", "-wal"):
                shutil.copy(f"{path}{suffix}", f"{copy_to}{suffix}")
        await database.close()

    trio.run(main)


def glance(path):
    """What is seen of a file that can be read."""
    opened = module.glance(path)
    if opened is None:
        return None
    opened.connection.close()
    return opened.seen


EXPECTED = Glance(
    (("p1", "kata", b"pod", 5, "ready", "boot"),),
    (
        ("c0", "p1", b"box", 7, "started", "boot", "sha256:x", False),
        ("c1", "p1", b"box", 8, "started", "boot", "sha256:x", True),
    ),
)


def test_rows_are_seen_as_they_were_committed(tmp_path):
    fill(tmp_path / "db")
    assert glance(tmp_path / "db") == EXPECTED


def test_commits_that_only_the_log_has_are_seen_and_stay_there(tmp_path):
    """A killed daemon leaves them so. Its log's blocks are what a full disk has for removals."""
    fill(tmp_path / "db", tmp_path / "copy")
    before = {name: (tmp_path / name).read_bytes() for name in ("copy", "copy-wal")}
    opened = module.glance(tmp_path / "copy")
    assert opened.seen == EXPECTED
    assert {path.name: path.read_bytes() for path in tmp_path.glob("copy*")} == before

    async def take_over():
        database = await Database.open(tmp_path / "copy", MIGRATIONS, opened.connection)
        assert (tmp_path / "copy-wal").exists()
        found = await SandboxRows(database, lambda request: POD).load()
        await database.close()
        return [one.id for one in found]

    assert trio.run(take_over) == ["p1"]
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        opened.connection.execute("SELECT 1")


def test_a_file_that_another_program_holds_is_left_to_the_core(tmp_path):
    fill(tmp_path / "db")
    with closing(sqlite3.connect(tmp_path / "db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert glance(tmp_path / "db") is None
        other.execute("ROLLBACK")


def test_a_place_with_strange_characters_is_read(tmp_path):
    directory = tmp_path / "a?b#c %41"
    directory.mkdir()
    fill(directory / "db")
    assert glance(directory / "db") == EXPECTED


def test_a_missing_a_damaged_and_a_foreign_file_are_left_to_the_core(tmp_path):
    assert glance(tmp_path / "none") is None
    assert not (tmp_path / "none").exists()
    (tmp_path / "damaged").write_bytes(b"SQLite format 3\0" + b"x" * 4096)
    assert glance(tmp_path / "damaged") is None
    with closing(sqlite3.connect(tmp_path / "foreign")) as other, other:
        other.execute("CREATE TABLE pets (name TEXT)")
    assert glance(tmp_path / "foreign") is None


@pytest.mark.parametrize("version", [0, MIGRATIONS[-1].version + 1])
def test_a_schema_of_another_noded_is_left_to_the_core(tmp_path, version):
    fill(tmp_path / "db")
    with closing(sqlite3.connect(tmp_path / "db")) as other, other:
        other.execute(
            "UPDATE migrations SET version = ? WHERE version = ?", (version, MIGRATIONS[-1].version)
        )
        other.execute(
            "DELETE FROM migrations WHERE version < ?", (MIGRATIONS[-1].version,)
        ) if version == 0 else None
    assert glance(tmp_path / "db") is None


def test_it_knows_the_newest_schema():
    """Whoever adds a migration looks whether the columns of lists are still what they were."""
    known = module._NEWEST_SCHEMA
    assert known == MIGRATIONS[-1].version
