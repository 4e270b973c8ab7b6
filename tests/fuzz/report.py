"""tests/fuzz/RESULTS.md: the last run of each target."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")
_HEAD = """# Results of fuzzing

Written by `make fuzz`: the last run of each target. A target fails on any error but the parser's own, on an
answer or a buffer out of proportion to the input, on an input that takes ten seconds, and beyond 512 MiB.

| Target | Inputs | Seconds | New coverage | MiB, at most | Guided by | Seed | Commit | Begun (UTC) | Result |
|---|---:|---:|---:|---:|---|---:|---|---|---|
"""
_STATISTIC = re.compile(r"^stat::(\w+):\s+(\d+)$", re.MULTILINE)
_MUTATED = re.compile(r": (\d+) inputs in .* at most (\d+) MB$", re.MULTILINE)


@dataclass(frozen=True)
class Outcome:
    """One run of one target."""

    target: str
    inputs: int
    seconds: int
    found: int  # inputs kept because they reached code that none had before
    megabytes: int
    guide: str
    seed: int
    commit: str
    begun: str
    result: str


def figures(output: str) -> tuple[int, int, int, str]:
    """(inputs, new coverage, MiB, guide) from what a run printed; zeroes when it did not come to its end."""
    statistics = {name: int(value) for name, value in _STATISTIC.findall(output)}
    if "number_of_executed_units" in statistics:
        return (
            statistics["number_of_executed_units"],
            statistics["new_units_added"],
            statistics["peak_rss_mb"],
            "coverage",
        )
    if found := _MUTATED.search(output):
        return int(found[1]), 0, int(found[2]), "seeds"
    return 0, 0, 0, ""


def put(path: Path, outcome: Outcome) -> None:
    """Put a row in, in place of the target's earlier one."""
    rows: dict[str, str] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        cells = line.split("|")
        if len(cells) > 2 and cells[2].strip().isdigit():
            rows[cells[1].strip()] = line
    rows[outcome.target] = (
        f"| {outcome.target} | {outcome.inputs} | {outcome.seconds} | {outcome.found} "
        f"| {outcome.megabytes} | {outcome.guide} | {outcome.seed} | {outcome.commit} "
        f"| {outcome.begun} | {outcome.result} |"
    )
    path.write_text(_HEAD + "\n".join(rows[name] for name in sorted(rows)) + "\n")
