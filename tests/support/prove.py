"""`make prove`: every test with its full count, part by part, and RESULTS.md with what came of it.

A part is a directory or a file of tests. Its report is kept in build/prove/COMMIT-SEED/, so that an
interrupted run goes on where it stopped; a tree with uncommitted changes starts anew. In RESULTS.md
a run replaces the rows of its own parts only: each row has the commit, seed and date of its own.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.support.commit import REPOSITORY, commit_of_tree, describe_tree

RESULTS = REPOSITORY / "RESULTS.md"
NO_TESTS_COLLECTED = 5  # pytest's exit status
_CELLS = re.compile(r"\| (?P<part>[^|]+?) \| (?P<rest>.+) \|")


@dataclass(frozen=True)
class Run:
    """What the rows of one run have in common."""

    commit: str
    seed: int
    date: str


@dataclass(frozen=True)
class Outcome:
    """What pytest's JUnit file says of one part."""

    part: str
    passed: int
    failed: int
    skipped: int
    seconds: float
    reasons: tuple[str, ...]  # of skips and failures


def main() -> int:
    """Run all parts; exit 1 when any test failed."""
    parser = argparse.ArgumentParser(prog="make prove", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("parts", nargs="*", help="directories or files of tests; without any, all of them")
    arguments = parser.parse_args()
    seed = arguments.seed
    commit, clean = commit_of_tree()
    directory = REPOSITORY / "build" / "prove" / f"{commit}-{seed}"
    directory.mkdir(parents=True, exist_ok=True)
    outcomes = []
    for part in arguments.parts or _parts():
        report = directory / f"{part.replace('/', '-')}.xml"
        if clean and report.exists() and not (kept := read_report(part, report)).failed:
            print(f"--- {part}: kept from an earlier run")
            outcomes.append(kept)
            continue
        print(f"--- {part}", flush=True)
        unfinished = report.with_suffix(".unfinished")
        command = [
            sys.executable,
            "-m",
            "pytest",
            part,
            f"--hypothesis-seed={seed}",
            f"--junit-xml={unfinished}",
        ]
        status = subprocess.run(
            command, cwd=REPOSITORY, env={**os.environ, "NODED_PROVE": "1"}, check=False
        ).returncode
        if status == NO_TESTS_COLLECTED:
            continue
        if status not in (0, 1):
            print(f"pytest ended with status {status}: {part} has no result", file=sys.stderr)
            return 1
        unfinished.rename(report)
        outcomes.append(read_report(part, report))
    now = datetime.datetime.now(datetime.UTC)
    run = Run(describe_tree(), seed, f"{now:%Y-%m-%d %H:%M}")
    earlier = RESULTS.read_text() if RESULTS.exists() else ""
    RESULTS.write_text(render(merge(earlier, outcomes, run)))
    print(f"--- {RESULTS.name} written")
    return 1 if any(outcome.failed for outcome in outcomes) else 0


def read_report(part: str, path: Path) -> Outcome:
    """Read a JUnit file of pytest."""
    suite = next(ET.parse(path).getroot().iter("testsuite"))
    total, failures, errors, skipped = (
        int(suite.get(key, "0")) for key in ("tests", "failures", "errors", "skipped")
    )
    reasons = []
    for case in suite.iter("testcase"):
        for kind in ("failure", "error", "skipped"):
            for found in case.iter(kind):
                lines = (found.get("message") or "").splitlines() or [""]
                reasons.append(f"{kind}: {case.get('classname')}::{case.get('name')}: {lines[0]}")
    failed = failures + errors
    seconds = float(suite.get("time", "0"))
    return Outcome(part, total - failed - skipped, failed, skipped, seconds, tuple(reasons))


@dataclass(frozen=True)
class Row:
    """What RESULTS.md keeps of one part: its cells, and a line for each test that did not pass."""

    cells: tuple[str, ...]
    reasons: tuple[str, ...]


def merge(earlier: str, outcomes: Sequence[Outcome], run: Run) -> dict[str, Row]:
    """The rows of an earlier RESULTS.md with those of this run put in, by part."""
    rows: dict[str, Row] = {}
    part = ""
    for line in earlier.splitlines():
        if (cells := _CELLS.fullmatch(line)) and cells["part"].startswith("tests/"):
            values = tuple(cell.strip() for cell in cells["rest"].split("|"))
            rows[cells["part"]] = Row(values, ())
        elif line.startswith("### "):
            part = line.removeprefix("### ")
        elif line.startswith("- ") and part in rows:
            rows[part] = replace(rows[part], reasons=(*rows[part].reasons, line.removeprefix("- ")))
    for one in outcomes:
        figures = (one.passed, one.failed, one.skipped, round(one.seconds))
        cells_of = (*map(str, figures), str(run.seed), run.commit, run.date)
        rows[one.part] = Row(cells_of, one.reasons)
    return rows


def render(rows: Mapping[str, Row]) -> str:
    """RESULTS.md."""
    lines = [
        "# Results of `make prove`",
        "",
        "Every test of a part ran with its full count. A run replaces the rows of the parts that it ran.",
        f"The machine of the last run: Python {platform.python_version()}, Linux {platform.release()}, "
        f"{os.cpu_count()} CPUs, {'root' if os.geteuid() == 0 else 'not root: what needs it was skipped'}.",
        "",
        "| Part | Passed | Failed | Skipped | Seconds | Seed | Commit | Date (UTC) |",
        "|---|---:|---:|---:|---:|---:|---|---|",
    ]
    lines += [f"| {part} | {' | '.join(row.cells)} |" for part, row in sorted(rows.items())]
    if any(row.reasons for row in rows.values()):
        lines += ["", "## Not passed"]
    for part, row in sorted(rows.items()):
        if row.reasons:
            lines += ["", f"### {part}", "", *(f"- {reason}" for reason in row.reasons)]
    return "\n".join(lines) + "\n"


def _parts() -> Iterator[str]:
    """Directories that hold test files, those without root first.

    The virtual machine is a part where NODED_VM=1 asks for it: otherwise its row would become one of skips.
    """
    directories = {path.parent.relative_to(REPOSITORY) for path in (REPOSITORY / "tests").rglob("test_*.py")}
    if os.environ.get("NODED_VM", "") in ("", "0"):
        directories.discard(Path("tests/vm"))
    order = ("unit", "docs")
    yield from sorted(map(str, directories), key=lambda part: (part.split("/")[1] not in order, part))


if __name__ == "__main__":
    sys.exit(main())
