"""`make prove`: every test with its full count, part by part, and RESULTS.md with what came of it.

A part is a directory of tests. Its result is kept in build/prove/COMMIT-SEED/, so that an
interrupted run goes on where it stopped; a tree with uncommitted changes starts anew.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
RESULTS = REPOSITORY / "RESULTS.md"
NO_TESTS_COLLECTED = 5  # pytest's exit status


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
    parser.add_argument("parts", nargs="*", help="directories of tests; without any, all of them")
    arguments = parser.parse_args()
    seed = arguments.seed
    commit, clean = _commit()
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
    text = render(outcomes, commit if clean else f"{commit} with uncommitted changes", seed)
    if arguments.parts:
        text = text.replace("every test ran with", "only the parts in the table ran, every test of them with")
    RESULTS.write_text(text)
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


def render(outcomes: list[Outcome], commit: str, seed: int) -> str:
    """RESULTS.md."""
    now = datetime.datetime.now(datetime.UTC)
    lines = [
        "# Results of `make prove`",
        "",
        "Written by `make prove`; every test ran with its full count.",
        "",
        f"- Date: {now:%Y-%m-%d %H:%M} UTC",
        f"- Commit: {commit}",
        f"- Seed: {seed}",
        f"- Python {platform.python_version()}, Linux {platform.release()}, {os.cpu_count()} CPUs, "
        f"{'root' if os.geteuid() == 0 else 'not root: tests that need it were skipped'}",
        "",
        "| Part | Passed | Failed | Skipped | Seconds |",
        "|---|---:|---:|---:|---:|",
    ]
    rows = [(item.part, item.passed, item.failed, item.skipped, item.seconds) for item in outcomes]
    rows.append(("**all**", *(sum(row[column] for row in rows) for column in range(1, 5))))  # type: ignore[arg-type]
    lines += [
        f"| {part} | {passed} | {failed} | {skipped} | {seconds:.0f} |"
        for part, passed, failed, skipped, seconds in rows
    ]
    reasons = [reason for outcome in outcomes for reason in outcome.reasons]
    if reasons:
        lines += ["", "## Not passed", "", *(f"- {reason}" for reason in reasons)]
    return "\n".join(lines) + "\n"


def _parts() -> Iterator[str]:
    """Directories that hold test files, those without root first."""
    directories = {path.parent.relative_to(REPOSITORY) for path in (REPOSITORY / "tests").rglob("test_*.py")}
    order = ("unit", "docs")
    yield from sorted(map(str, directories), key=lambda part: (part.split("/")[1] not in order, part))


def _commit() -> tuple[str, bool]:
    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=True
        ).stdout

    try:
        changes = [
            line for line in git("status", "--porcelain").splitlines() if not line.endswith(" RESULTS.md")
        ]
        return git("rev-parse", "--short=12", "HEAD").strip(), not changes
    except (OSError, subprocess.CalledProcessError):
        return "unknown", False


if __name__ == "__main__":
    sys.exit(main())
