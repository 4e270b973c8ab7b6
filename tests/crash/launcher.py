"""`python -m tests.crash.launcher serve ...`: noded whose rungs fail on request.

The product has no hooks for this. Before noded starts, the two ladders and the operations are
wrapped: every rung's `up` and `down` first and last looks for an armed fault, a file in
`$NODED_TEST_FAULTS/armed`. A fault happens once; see `tests.crash.faults` for the other side.
"""

from __future__ import annotations

import errno
import functools
import importlib
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Hashable
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import Any

import outcome
import trio

from noded.cli.main import run
from noded.engine.container_ladder import ContainerLadder
from noded.engine.ladder import Rung
from noded.engine.operations import Operation, Operations
from noded.engine.sandbox_ladder import SandboxLadder
from noded.errors import Unavailable
from noded.store.containers import ContainerRows
from noded.store.sandboxes import SandboxRows

Step = Callable[[Any], Awaitable[None]]

# Set when the operation that the current task works for has been cancelled.
CANCELLED: ContextVar[trio.Event | None] = ContextVar("cancelled", default=None)


class Faults:
    """The armed faults of a directory, each named LADDER.RUNG.DIRECTION MOMENT ACT."""

    def __init__(self, directory: Path) -> None:
        self._armed = directory / "armed"
        self._fired = directory / "fired"
        self._arrivals = directory / "arrivals"

    async def pass_by(self, point: str, moment: str) -> None:
        """Do what is armed for this moment of this point, if anything."""
        for act in ("error", "kill", "hold"):
            name = f"{point} {moment} {act}"
            armed = self._armed / name
            if not armed.exists():
                continue
            if left := int(armed.read_text() or "0"):
                armed.write_text(str(left - 1))
                continue
            armed.rename(self._fired / name)
            match act:
                case "error":
                    raise OSError(errno.EIO, f"told to fail by the test at {point}")
                case "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                case "hold":
                    await self._hold()

    async def _hold(self) -> None:
        """Tell the test, then wait until its cancel has arrived here."""
        arrivals = os.open(self._arrivals, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.write(arrivals, b"held\n")
        os.close(arrivals)
        cancelled = CANCELLED.get()
        assert cancelled is not None, "a step outside of any operation cannot be cancelled"
        await cancelled.wait()

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
        def __init__(instance: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
            original(instance, *args, **kwargs)
            instance.rungs = tuple(rung_with_faults(rung) for rung in instance.rungs)

        ladder.__init__ = __init__  # type: ignore[method-assign]

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


def tell_cancels() -> None:
    """Set CANCELLED's event in every operation that is cancelled, also while a rung is shielded."""
    original = Operations._run

    async def tell(cancelled: trio.Event) -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            cancelled.set()  # not raised on: that would end an operation which outran its cancel

    async def _run(
        self: Operations, key: Hashable, operation: Operation[Any], work: Callable[..., Awaitable[Any]]
    ) -> None:
        async def watched(operation: Operation[Any]) -> Any:
            cancelled = trio.Event()
            CANCELLED.set(cancelled)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(tell, cancelled)
                result = await outcome.acapture(work, operation)
                nursery.cancel_scope.cancel()
            return result.unwrap()

        await original(self, key, operation, watched)

    Operations._run = _run  # type: ignore[method-assign]


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
    tell_cancels()
    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
