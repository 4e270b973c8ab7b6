"""tests/soak/RESULTS.md: the last soaks, newest first."""

from __future__ import annotations

import datetime
from pathlib import Path

from tests.soak.soak import Outcome

RESULTS = Path(__file__).with_name("RESULTS.md")
KEPT = 20
_HEAD = """# Results of soaks

Written by `make soak SECONDS=...`. Each episode of random steps begins and ends with an empty node, whose
mounts, namespaces, links, cgroups, processes, addresses, directories, rows, descriptors and packet filter
rules must then be those from before.

| Date (UTC) | Commit | Seed | Seconds | Episodes | Steps | Faults | Leaks | noded, MiB first/last | Result |
|---|---|---:|---:|---:|---:|---:|---:|---:|---|
"""


def add_row(path: Path, outcome: Outcome) -> None:
    """Put a row for this soak before the others."""
    old = path.read_text() if path.exists() else ""
    rows = [line for line in old.splitlines() if line.startswith("| 2")]
    path.write_text(_HEAD + "\n".join([row(outcome), *rows][:KEPT]) + "\n")


def row(outcome: Outcome) -> str:
    """One line of the table."""
    first, last = (kilobytes / 1024 for kilobytes in outcome.kilobytes)
    leaks = 1 if "the host has changed" in outcome.error else 0
    # A bar would begin another column.
    result = outcome.error.splitlines()[0].replace("|", "/")[:120] if outcome.error else "clean"
    now = datetime.datetime.now(datetime.UTC)
    return (
        f"| {now:%Y-%m-%d %H:%M} | {outcome.commit} | {outcome.seed} | {outcome.seconds:.0f} "
        f"| {outcome.episodes} | {outcome.steps} | {outcome.faults} | {leaks} "
        f"| {first:.1f} / {last:.1f} | {result} |"
    )
