"""The crash matrix as a table: tests/crash/MATRIX.md, with a section for each part, written by full runs."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tests.crash.faults import ACTS, MOMENTS
from tests.support.commit import describe_tree
from tests.support.counts import full_counts

TABLE = Path(__file__).with_name("MATRIX.md")
BUILD = Path(__file__).resolve().parents[2] / "build"
CLEAN = "clean"
_HEAD = """# The crash matrix

Each cell: noded runs, and a fault happens once, before or after one step of what it does: the step fails,
the client cancels while it is there, or noded is killed there (SIGKILL). Then the test does what kubelet
would, which is to ask again, after a SIGKILL of a new noded. In the end that has worked, and mounts,
namespaces, links, cgroups, processes, addresses, directories, blobs, layers, rows and descriptors are those
from before. A migration is cancelled by a SIGTERM. Written by `make prove PARTS=tests/crash`.

"""
_SECTION = re.compile(
    r"^## (?P<part>.+?): (?P<cells>\d+) cells, (?P<clean>\d+) clean, (?P<leaks>\d+) leaks$", re.M
)
_COLUMNS = [(act, moment) for act in ACTS for moment in MOMENTS]
_NAMES = {"error": "error", "hold": "cancel", "kill": "SIGKILL"}


@dataclass
class Results:
    """What came of the cells of one part.

    Args:
        part: heading of its section.
        cells: how many there are in all.
        rows: (step, way) -> (act, moment) -> result.
    """

    part: str
    cells: int
    seed: int
    rows: dict[tuple[str, str], dict[tuple[str, str], str]] = field(default_factory=dict)
    seconds: float = 0.0
    commit: str = field(default_factory=describe_tree)

    @contextmanager
    def cell(
        self, step: str, way: str, act: str, moment: str, spoilt: Callable[[], object]
    ) -> Iterator[None]:
        """Run one cell within the block, and note how it ends; `spoilt` is called when it fails."""
        results = self.rows.setdefault((step, way), {})
        results[act, moment] = "FAILED"
        started = time.monotonic()
        try:
            yield
            results[act, moment] = CLEAN
        except BaseException as error:
            if "the host has changed" in str(error):
                results[act, moment] = "leak"
            spoilt()
            raise
        finally:
            self.seconds += time.monotonic() - started

    def write(self) -> None:
        """Print the figures; put the section into the table when every cell ran, else into build/."""
        section = self.section()
        print(f"\n{section.splitlines()[0].removeprefix('## ')} ({self.cells} in all), {self.seconds:.0f} s")
        if full_counts() and sum(map(len, self.rows.values())) == self.cells:
            sections = read_sections(TABLE.read_text() if TABLE.exists() else "")
            TABLE.write_text(render({**sections, self.part: section}))
        else:
            BUILD.mkdir(exist_ok=True)
            (BUILD / f"crash-matrix-{self.part.split()[0]}.md").write_text(section)

    def section(self) -> str:
        """The part of the table."""
        found = [result for results in self.rows.values() for result in results.values()]
        now = datetime.now(UTC)
        lines = [
            f"## {self.part}: {len(found)} cells, {found.count(CLEAN)} clean, {found.count('leak')} leaks",
            "",
            f"Commit {self.commit}, seed {self.seed}, {now:%Y-%m-%d %H:%M} UTC, {self.seconds:.0f} s.",
            "",
            f"| step | way | {' | '.join(f'{_NAMES[act]} {moment}' for act, moment in _COLUMNS)} |",
            f"|---|---|{'---|' * len(_COLUMNS)}",
            *(
                f"| {step} | {way} | {' | '.join(results.get(column, '') for column in _COLUMNS)} |"
                for (step, way), results in self.rows.items()
            ),
        ]
        return "\n".join(lines) + "\n"


def read_sections(text: str) -> dict[str, str]:
    """The sections of a table by their part."""
    starts = [*_SECTION.finditer(text)]
    ends = [*(one.start() for one in starts), len(text)][1:]
    return {
        one["part"]: text[one.start() : end].strip() + "\n" for one, end in zip(starts, ends, strict=True)
    }


def render(sections: Mapping[str, str]) -> str:
    """The whole table."""
    text = "\n".join(sections[part] for part in sorted(sections))
    cells, clean, leaks = (
        sum(int(one[name]) for one in _SECTION.finditer(text)) for name in ("cells", "clean", "leaks")
    )
    return f"{_HEAD}**{cells} cells, {clean} clean, {leaks} leaks.**\n\n{text}"
