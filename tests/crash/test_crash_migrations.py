"""The crash matrix of schema migrations: every statement, record and commit of each, over live pods.

A start whose migration fails, is stopped or is killed leaves the pods alone, and the next start brings the
schema up to date. Downgrades: what an older noded cannot read is refused, with the version to install.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from noded.store.database import Migration
from noded.store.schema import MIGRATIONS
from tests.crash.faults import ACTS, MOMENTS, Fault, FaultyDaemon
from tests.crash.matrix import Results
from tests.crash.world import World
from tests.support.counts import full_counts
from tests.support.oracle import copy_database

pytestmark = pytest.mark.root

_MADE = re.compile(r"CREATE (?:UNIQUE )?(?P<kind>TABLE|INDEX) (?P<name>\w+)")
NEWER = "99.1.0"


@dataclass(frozen=True)
class Cell:
    """One fault at one end of one step of a migration."""

    version: int
    step: str
    act: str
    moment: str

    def __str__(self) -> str:
        return f"{self.version}-{self.step}-{self.act}-{self.moment}"

    @property
    def fault(self) -> Fault:
        return Fault("migration", f"{self.version}.{self.step}", "", self.moment, self.act)


def cells() -> list[Cell]:
    """Every step of every migration."""
    return [
        Cell(migration.version, step, act, moment)
        for migration in MIGRATIONS
        for step in (*map(str, range(len(migration.statements))), "record", "commit")
        for act in ACTS
        for moment in MOMENTS
    ]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """All cells under `make prove`, otherwise the commits, in one of the ways each."""
    if "cell" in metafunc.fixturenames:
        seed = int(metafunc.config.getoption("hypothesis_seed"))
        commits = [cell for cell in cells() if cell.step == "commit"]
        metafunc.parametrize("cell", cells() if full_counts() else commits[seed % 5 :: 5], ids=str)


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest) -> Iterator[Results]:
    seed = int(request.config.getoption("hypothesis_seed"))
    gathered = Results("schema migrations", len(cells()), seed)
    yield gathered
    gathered.write()


@pytest.fixture(scope="module")
def worlds(open_world: Callable[..., World]) -> Callable[..., World]:
    """The current world; a new one after a cell that failed."""
    open_ones: list[World] = []

    def current(*, spoilt: bool = False) -> World:
        if spoilt:
            open_ones.clear()
        if not open_ones:
            open_ones.append(open_world())
        return open_ones[0]

    return current


def database_of(daemon: FaultyDaemon) -> Path:
    return daemon.root / "noded.db"


def take_back(path: Path, version: int) -> None:
    """Make a database what it was before this migration, and those after it."""
    with closing(sqlite3.connect(path)) as connection, connection:
        for migration in reversed(MIGRATIONS[version - 1 :]):
            for statement in reversed(migration.statements):
                made = _MADE.match(statement)
                assert made, f"this test does not know how to take back: {statement}"
                connection.execute(f"DROP {made['kind']} {made['name']}")
        connection.execute("DELETE FROM migrations WHERE version >= ?", (version,))


def versions(path: Path) -> list[tuple[int, str]]:
    """What a sound database says of its schema: migrations, and all that they made."""
    with (
        tempfile.TemporaryDirectory() as directory,
        closing(sqlite3.connect(copy_database(path, Path(directory)))) as connection,
    ):
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        query = "SELECT name FROM sqlite_schema WHERE sql IS NOT NULL"
        made = sorted(name for (name,) in connection.execute(query))
        return [(number, "") for (number,) in connection.execute("SELECT version FROM migrations")] + [
            (0, name) for name in made
        ]


def facts_of(world: World) -> list[Any]:
    """What a migration must not change."""
    cri = world.cri
    pods = [(pod.id, pod.state, pod.created_at, cri.pod_ip(pod.id)) for pod in cri.pods()]
    containers = [
        (one.id, one.state, one.created_at, json.loads(cri.verbose_status(one.id).info["info"])["pid"])
        for one in cri.containers()
    ]
    return [pods, containers]


def test_after_any_fault_the_next_start_completes_the_migration(cell: Cell, worlds, results, seed):
    print(f"seed {seed}; armed: {cell.fault}")
    world: World = worlds()
    before = world.oracle.take()
    name = f"migration {cell.version}: {'statement ' if cell.step.isdigit() else ''}{cell.step}"
    with results.cell(name, "start", cell.act, cell.moment, lambda: worlds(spoilt=True)):
        perform(world, cell, MIGRATIONS[cell.version - 1])
        world.assert_unchanged(before)


def perform(world: World, cell: Cell, migration: Migration) -> None:
    daemon: FaultyDaemon = world.daemon
    path = database_of(daemon)
    alive = migration.version > 1  # before the first one nothing can have been known
    if alive:
        pod, config = world.pod()
        world.cri.run_container(pod, world.main(), config)
    facts, schema = facts_of(world), versions(path)
    assert daemon.stop() == 0
    kept = daemon.root.with_name("kept-root")
    if alive:
        take_back(path, migration.version)
    else:
        # The images, too: a daemon that knows of none removes their bytes.
        daemon.root.rename(kept)
        daemon.root.mkdir(mode=0o711)
    refused_start(daemon, cell)
    if not alive:
        daemon.start()
        assert versions(path) == schema
        assert daemon.stop() == 0
        shutil.rmtree(daemon.root)
        kept.rename(daemon.root)
    daemon.start()
    world.settled()
    assert facts_of(world) == facts
    assert versions(path) == schema
    if alive:
        world.cri.remove_pod(pod)


def refused_start(daemon: FaultyDaemon, cell: Cell) -> None:
    """A start that meets the fault: it ends before it is ready."""
    with daemon.armed(cell.fault), ThreadPoolExecutor(1) as starter:
        start = starter.submit(daemon.start)
        if cell.act == "hold":
            daemon.wait_held()
            os.kill(daemon.pid, signal.SIGTERM)
            daemon.release()
        with pytest.raises(AssertionError, match="noded ended with status") as ended:
            start.result()
    status = int(re.findall(r"noded ended with status (-?\d+)", str(ended.value))[0])
    if cell.act == "error":
        assert status == 1
        assert "check the file system of" in str(ended.value)
    else:
        assert status == (-signal.SIGKILL if cell.act == "kill" else 0)


@pytest.mark.parametrize("oldest_reader", [99, MIGRATIONS[-1].version])
def test_an_older_noded_says_which_version_to_install_unless_it_can_read_the_schema(
    worlds, oldest_reader, seed
):
    print(f"seed {seed}")
    world = worlds()
    before = world.oracle.take()
    pod, config = world.pod()
    container = world.cri.run_container(pod, world.main(), config)
    facts = facts_of(world)
    assert world.daemon.stop() == 0
    with closing(sqlite3.connect(database_of(world.daemon))) as connection, connection:
        connection.execute("INSERT INTO migrations VALUES (99, ?, ?)", (oldest_reader, NEWER))
    if oldest_reader == 99:
        with pytest.raises(AssertionError, match="noded ended with status 1") as refusal:
            world.daemon.start()
        assert f"install noded {NEWER} or later" in str(refusal.value)
        with closing(sqlite3.connect(database_of(world.daemon))) as connection, connection:
            connection.execute("DELETE FROM migrations WHERE version = 99")
    world.daemon.start()
    world.settled()
    assert facts_of(world) == facts
    assert world.cri.exec(container, "echo", "alive").stdout == b"alive\n"
    world.cri.remove_pod(pod)
    assert world.daemon.stop() == 0
    with closing(sqlite3.connect(database_of(world.daemon))) as connection, connection:
        connection.execute("DELETE FROM migrations WHERE version = 99")
    world.daemon.start()
    world.settled()
    world.assert_unchanged(before)
