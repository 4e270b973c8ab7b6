"""Faults at the rungs of a running noded: the tests' side of `tests.crash.launcher`."""

from __future__ import annotations

import inspect
import os
import select
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noded.config import Config
from noded.engine.container_ladder import ContainerLadder
from noded.engine.sandbox_ladder import SandboxLadder
from noded.model.paths import Layout
from tests.support.daemon import NodedDaemon

MOMENTS = ("before", "after")
ACTS = ("error", "hold", "kill")  # hold: the client cancels while the step waits there
HELD_SECONDS = 20.0
DEATH_SECONDS = 20.0


@dataclass(frozen=True)
class Fault:
    """One fault at one end of one step of a ladder."""

    ladder: str
    rung: str
    direction: str  # up, down; "" for what has only one
    moment: str
    act: str

    def __str__(self) -> str:
        """The name of the file that arms it."""
        step = f"{self.ladder}.{self.rung}" + (f".{self.direction}" if self.direction else "")
        return f"{step} {self.moment} {self.act}"


def ladders() -> dict[str, tuple[str, ...]]:
    """The names of the rungs, bottom first, as the ladders themselves have them."""
    return {"sandbox": _rungs(SandboxLadder), "container": _rungs(ContainerLadder)}


def _rungs(ladder: type) -> tuple[str, ...]:
    """A ladder without parts cannot be climbed, but knows its rungs."""
    nowhere = Path("/nonexistent")
    parts = {"config": Config(), "layout": Layout(nowhere, nowhere)}
    names = [name for name in inspect.signature(ladder).parameters if name != "self"]
    return tuple(rung.name for rung in ladder(**{name: parts.get(name) for name in names}).rungs)


class FaultyDaemon(NodedDaemon):
    """A noded whose rungs fail when the test arms a fault."""

    module = "tests.crash.launcher"

    def __init__(self, directory: Path, **options: Any) -> None:
        super().__init__(directory, **options)
        self._faults = self.directory / "faults"
        self._environment["NODED_TEST_FAULTS"] = str(self._faults)
        self._arrivals = self._released = -1

    def prepare(self) -> None:
        super().prepare()
        for name in ("armed", "fired"):
            (self._faults / name).mkdir(parents=True)
        for name in ("arrivals", "released"):
            os.mkfifo(self._faults / name)
        # For reading and writing: then neither side waits for the other to open.
        self._arrivals = os.open(self._faults / "arrivals", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        self._released = os.open(self._faults / "released", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)

    def arm(self, *faults: Fault, skipping: int = 0) -> None:
        """Let these faults happen, once each, after so many passes without."""
        with suppress(BlockingIOError):  # the release of a step that its cancel had ended
            os.read(self._released, 4096)
        for fault in faults:
            new = self._faults / "new"
            new.write_text(str(skipping))
            new.rename(self._faults / "armed" / str(fault))

    @contextmanager
    def armed(self, *faults: Fault) -> Iterator[None]:
        """The faults happen within the block; fails when one of them did not."""
        self.arm(*faults)
        try:
            yield
        finally:
            idle = [fault for fault in faults if not self.disarm(fault)]
        assert not idle, f"never came by: {', '.join(map(str, idle))}"

    def disarm(self, fault: Fault) -> bool:
        """Forget a fault; tell whether it has happened."""
        (self._faults / "armed" / str(fault)).unlink(missing_ok=True)
        fired = self._faults / "fired" / str(fault)
        happened = fired.exists()
        fired.unlink(missing_ok=True)
        return happened

    def wait_held(self) -> None:
        """Wait until a step has reached an armed `hold`."""
        ready, _, _ = select.select([self._arrivals], [], [], HELD_SECONDS)
        assert ready, f"no step was held within {HELD_SECONDS} s:\n{self.log_text()}"
        os.read(self._arrivals, 4096)

    def release(self) -> None:
        """Let a held step that its cancel could not end go on."""
        os.write(self._released, b".")

    def wait_dead(self) -> None:
        """Wait until the daemon has died of an armed `kill`."""
        assert self._process is not None
        self._process.wait(DEATH_SECONDS)

    def close(self) -> None:
        super().close()
        if self._arrivals >= 0:
            os.close(self._arrivals)
            os.close(self._released)
            self._arrivals = self._released = -1
