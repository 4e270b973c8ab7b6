"""tests/soak/RESULTS.md: the last soaks, newest first, and what they come to together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.soak.soak import Outcome

RESULTS = Path(__file__).with_name("RESULTS.md")
KEPT = 100
_HEAD = """# Results of soaks

Written by `make soak SECONDS=...`. Each episode of random steps begins and ends with an empty node, whose
mounts, namespaces, links, cgroups, processes, addresses, directories, rows, descriptors and packet filter
rules must then be those from before. A soak goes on with the episode after the last one of its seed, so a
long one can be run in parts.

"""
_TABLE = """
| Begun (UTC) | Commit | Seed | Seconds | Episodes | Steps | Faults | Leaks | noded, MiB first/last | Result |
|---|---|---:|---:|---:|---:|---:|---:|---:|---|
"""
_SUMMED = slice(3, 8)  # the columns from Seconds to Leaks


def put_row(path: Path, outcome: Outcome) -> None:
    """Put a row for this soak before the others, in place of what was said of it earlier."""
    old = path.read_text() if path.exists() else ""
    new = row(outcome)
    same = new.split("|")[1:4]
    rows = [line for line in old.splitlines() if line.startswith("| 2") and line.split("|")[1:4] != same]
    rows = [new, *rows][:KEPT]
    path.write_text(_HEAD + together(rows) + _TABLE + "\n".join(rows) + "\n")


def together(rows: Sequence[str]) -> str:
    """What these rows come to."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in rows]
    seconds, episodes, steps, faults, leaks = (
        sum(map(int, column)) for column in zip(*(row[_SUMMED] for row in cells), strict=True)
    )
    failed = sum(row[-1] != "clean" for row in cells)
    return (
        f"Together, from commit {cells[-1][1]} to {cells[0][1]}: {seconds / 3600:.1f} hours, "
        f"{episodes} episodes, {steps} steps,\n"
        f"{faults} of them faults; {leaks} leaks, {failed} of {len(cells)} soaks not clean.\n"
    )


def row(outcome: Outcome) -> str:
    """One line of the table."""
    first, last = (kilobytes / 1024 for kilobytes in outcome.kilobytes)
    leaks = 1 if "the host has changed" in outcome.error else 0
    # A bar would begin another column.
    result = outcome.error.splitlines()[0].replace("|", "/")[:120] if outcome.error else "clean"
    return (
        f"| {outcome.date} | {outcome.commit} | {outcome.seed} | {outcome.seconds:.0f} "
        f"| {outcome.episodes} | {outcome.steps} | {outcome.faults} | {leaks} "
        f"| {first:.1f} / {last:.1f} | {result} |"
    )
