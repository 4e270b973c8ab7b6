"""What full runs measure beside passing: tests/crash/FIGURES.md, a line for each fault."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tests.crash.world import World
from tests.support.commit import describe_tree
from tests.support.counts import full_counts

TABLE = Path(__file__).with_name("FIGURES.md")
_PROMISED_MS = 20.0
_AS_QUIET = 3
_NO_WAITING_MS = 2000.0  # of a client that shares its process with others; far below any wait for a fault
_HEAD = """# Faults in figures

What full runs of these tests found, on the machine that RESULTS.md names, beside other work. p99 is that of
ListContainers: as a client measured it, in the process of the test, and as noded logged it, without the way
there. "Quiet" is the same measure just before the fault. Written by `make prove PARTS=tests/crash`.

| Fault | Found | Seed | Commit | Date (UTC) |
|---|---|---:|---|---|
"""
_ROW = re.compile(r"^\| (?P<fault>[^|]+?) \| .+ \|$", re.M)
_SERVED = re.compile(r" rpc .*\bduration_ms=(?P<ms>[\d.]+).* method=ListContainers\b")


def publish(fault: str, found: str, seed: int) -> None:
    """Print what was found; after a full run it takes the place of what the table said of this fault."""
    print(f"{fault}: {found}")
    if not full_counts():
        return
    rows = {one["fault"]: one[0] for one in _ROW.finditer(TABLE.read_text() if TABLE.exists() else "")}
    rows.pop("Fault", None)
    rows[fault] = f"| {fault} | {found} | {seed} | {describe_tree()} | {datetime.now(UTC):%Y-%m-%d %H:%M} |"
    TABLE.write_text(_HEAD + "".join(f"{rows[name]}\n" for name in sorted(rows)))


@dataclass(frozen=True)
class Waits:
    """The 99th percentiles of some ListContainers, in milliseconds."""

    client_ms: float
    server_ms: float

    def assert_kept(self, quiet: Waits) -> None:
        """They are as promised, or, where a busy machine exceeds that by itself, about as quiet ones."""
        assert self.server_ms < max(_PROMISED_MS, _AS_QUIET * quiet.server_ms), f"{self}; quiet: {quiet}"
        assert self.client_ms < max(_NO_WAITING_MS, _AS_QUIET * quiet.client_ms), f"{self}; quiet: {quiet}"

    def __str__(self) -> str:
        return f"{self.client_ms:.1f} ms (noded's part {self.server_ms:.1f} ms)"


def list_often(world: World, times: int) -> Waits:
    """Ask for all containers that often, one after another."""
    with world.daemon.log.open("rb") as log:
        log.seek(0, 2)
        waited = []
        for _ in range(times):
            started = time.monotonic()
            world.cri.containers()
            waited.append((time.monotonic() - started) * 1000)
        lines = log.read().decode(errors="replace").splitlines()
    served = [float(found["ms"]) for line in lines if (found := _SERVED.search(line))]
    assert len(served) >= times * 9 // 10, "noded's log does not have its answers"
    return Waits(p99(waited), p99(served))


def p99(values: Iterable[float]) -> float:
    """The value that one in a hundred exceeds."""
    ordered = sorted(values)
    return ordered[len(ordered) * 99 // 100]
