"""`python -m tests.crash.launcher serve ...`: noded whose rungs fail on request.

The product has no hooks for this. Before noded starts, the rungs of the two ladders, the rows, the
effects of pulls and collections, and the migrations are wrapped: each first and last looks for an armed
fault, a file in `$NODED_TEST_FAULTS/armed`. A fault happens once; see `tests.crash.faults` for the
other side.
"""

from __future__ import annotations

import errno
import functools
import importlib
import inspect
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import trio

from noded.cli.main import run
from noded.engine.container_ladder import ContainerLadder
from noded.engine.ladder import Rung
from noded.engine.sandbox_ladder import SandboxLadder
from noded.errors import Unavailable
from noded.store import database, schema
from noded.store.containers import ContainerRows
from noded.store.sandboxes import SandboxRows
from tests.crash.effects import EFFECTS, Effect

Step = Callable[[Any], Awaitable[None]]


class Faults:
    """The armed faults of a directory, each named LADDER.RUNG.DIRECTION MOMENT ACT."""

    def __init__(self, directory: Path) -> None:
        self._armed = directory / "armed"
        self._fired = directory / "fired"
        self._arrivals = directory / "arrivals"
        self._released = directory / "released"

    async def pass_by(self, point: str, moment: str) -> None:
        """Do what is armed for this moment of this point, if anything."""
        if self._strike(point, moment) == "hold":
            await self._hold()

    def pass_by_in_thread(self, point: str, moment: str) -> None:
        """The same in a worker thread of trio."""
        if self._strike(point, moment) == "hold":
            trio.from_thread.run(self._hold)

    def _strike(self, point: str, moment: str) -> str:
        """What is armed, and happens here or is for the caller to do; "" = nothing."""
        for act in ("error", "kill", "hold"):
            name = f"{point} {moment} {act}"
            armed = self._armed / name
            if not armed.exists():
                continue
            if left := int(armed.read_text() or "0"):
                armed.write_text(str(left - 1))
                continue
            armed.rename(self._fired / name)
            if act == "error":
                raise OSError(errno.EIO, f"told to fail by the test at {point}")
            if act == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            return act
        return ""

    async def _hold(self) -> None:
        """Tell the test, then wait until it has cancelled, and lets what is shielded from that go on."""
        arrivals = os.open(self._arrivals, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.write(arrivals, b"held\n")
        os.close(arrivals)
        released = os.open(self._released, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            await trio.lowlevel.wait_readable(released)
            os.read(released, 1)
        finally:
            os.close(released)

    def around(self, point: str, step: Step) -> Step:
        """`step` with a look for faults before and after it."""

        async def faulty(subject: Any) -> None:
            await self.pass_by(point, "before")
            await step(subject)
            await self.pass_by(point, "after")

        return faulty

    def wrap_ladder(self, ladder: type, name: str) -> None:
        """Put every rung of the instances of `ladder` between faults."""
        original = ladder.__init__

        def rung_with_faults(rung: Rung[Any]) -> Rung[Any]:
            point = f"{name}.{rung.name}"
            up, down = self.around(f"{point}.up", rung.up), self.around(f"{point}.down", rung.down)
            return replace(rung, up=up, down=down)

        @functools.wraps(original)
        def __init__(instance: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807 - put in place of one
            original(instance, *args, **kwargs)
            instance.rungs = tuple(rung_with_faults(rung) for rung in instance.rungs)

        ladder.__init__ = __init__

    def wrap_rows(self, rows: type, name: str) -> None:
        """Let commits fail as they do when the disk of the database does."""

        def around(method: str) -> Step:
            original = getattr(rows, method)
            point = f"{name}.{method}.commit"

            @functools.wraps(original)
            async def faulty(instance: Any, *args: Any) -> None:
                try:
                    await self.pass_by(point, "before")
                    await original(instance, *args)
                    await self.pass_by(point, "after")
                except OSError as error:
                    raise Unavailable(f"check the file system of the database: {error}") from error

            return faulty

        for method in ("insert", "update", "delete"):
            setattr(rows, method, around(method))

    def wrap_effect(self, effect: Effect) -> None:
        """Put a function or method between faults."""
        owner, name = effect.owner()
        original = getattr(owner, name)

        @functools.wraps(original)
        async def faulty(*args: Any, **kwargs: Any) -> Any:
            with effect.told():
                await self.pass_by(effect.point, "before")
            result = await original(*args, **kwargs)
            with effect.told():
                await self.pass_by(effect.point, "after")
            return result

        @functools.wraps(original)
        def faulty_in_thread(*args: Any, **kwargs: Any) -> Any:
            with effect.told():
                self.pass_by_in_thread(effect.point, "before")
            result = original(*args, **kwargs)
            with effect.told():
                self.pass_by_in_thread(effect.point, "after")
            return result

        setattr(owner, name, faulty if inspect.iscoroutinefunction(original) else faulty_in_thread)

    def wrap_migrations(self) -> None:
        """Put every statement of every migration, and its commit, between faults."""
        original = database._migrate

        def migrate(connection: sqlite3.Connection, *args: Any) -> None:
            original(FaultyConnection(connection, self), *args)

        database._migrate = migrate


class FaultyConnection:
    """What a migration sees of a database, with faults around each change."""

    def __init__(self, connection: sqlite3.Connection, faults: Faults) -> None:
        self._connection = connection
        self._faults = faults
        self._statements = [
            (statement, f"migration.{migration.version}.{number}")
            for migration in schema.MIGRATIONS
            for number, statement in enumerate(migration.statements)
        ]
        self._version = 0

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> sqlite3.Cursor:
        points = [point for known, point in self._statements if known == statement]
        if statement.startswith("INSERT INTO migrations"):
            self._version = parameters[0]
            points = [f"migration.{self._version}.record"]
        for point in points:
            self._pass_by(point, "before")
        done = self._connection.execute(statement, parameters)
        for point in points:
            self._pass_by(point, "after")
        return done

    def __enter__(self) -> sqlite3.Connection:
        return self._connection.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if kind is not None:
            return self._connection.__exit__(kind, error, trace)
        try:
            self._pass_by(f"migration.{self._version}.commit", "before")
        except BaseException as failure:
            self._connection.__exit__(type(failure), failure, failure.__traceback__)
            raise
        self._connection.__exit__(None, None, None)
        self._pass_by(f"migration.{self._version}.commit", "after")
        return False

    def _pass_by(self, point: str, moment: str) -> None:
        try:
            self._faults.pass_by_in_thread(point, moment)
        except OSError as error:
            failure = sqlite3.OperationalError(f"disk I/O error: {error}")
            failure.sqlite_errorcode = sqlite3.SQLITE_IOERR
            failure.sqlite_errorname = "SQLITE_IOERR"
            raise failure from error


def set_constants(assignments: str) -> None:
    """`MODULE:NAME=SECONDS ...`: shorter budgets than those that a node needs."""
    for assignment in assignments.split():
        place, value = assignment.split("=")
        module, name = place.split(":")
        loaded = importlib.import_module(module)
        assert hasattr(loaded, name), f"{module} has no {name}"
        setattr(loaded, name, float(value))


def shift_clock(file: Path) -> None:
    """Let the wall clock differ from the machine's by the seconds in a file, which may change at any time."""
    real = time.time_ns

    def shifted() -> int:
        return real() + int(float(file.read_text() or "0") * 1e9)

    time.time_ns = shifted
    time.time = lambda: shifted() / 1e9


def main() -> int:
    set_constants(os.environ.get("NODED_TEST_CONSTANTS", ""))
    if clock := os.environ.get("NODED_TEST_CLOCK"):
        shift_clock(Path(clock))
    faults = Faults(Path(os.environ["NODED_TEST_FAULTS"]))
    faults.wrap_ladder(SandboxLadder, "sandbox")
    faults.wrap_ladder(ContainerLadder, "container")
    faults.wrap_rows(SandboxRows, "sandbox-rows")
    faults.wrap_rows(ContainerRows, "container-rows")
    for effect in EFFECTS:
        faults.wrap_effect(effect)
    faults.wrap_migrations()
    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
