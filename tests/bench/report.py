"""The table, the JSON and RESULTS.md of one run."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.bench import plot
from tests.bench.programs import interpreter
from tests.bench.results import Results
from tests.bench.targets import Verdict, verdicts
from tests.support.daemon import REPOSITORY

RESULTS = Path(__file__).with_name("RESULTS.md")
PLOT = RESULTS.with_suffix(".svg")
_KEPT_RUNS = 3
_HEADING = "## Run of "
_INTRODUCTION = """# Results of `make bench`

Times are medians; in parentheses the 99th percentile (the maximum where there are fewer than 100
samples) and the CPU seconds that the whole process tree took for one. Systems took turns in one run on
one machine: only ratios mean anything elsewhere. `floor` is what the bare programs take: a target below
the ratio of the floor itself cannot be met by any daemon on that machine.
The newest runs are kept, newest first.
"""


def table(results: Results) -> list[list[str]]:
    """Header and rows: per subject median (p99, CPU)."""
    subjects = results.subjects()
    lines = [["measure", *subjects]]
    for row, cells in results.rows.items():
        line = [f"{row} [{results.units[row]}]"]
        for subject in subjects:
            series = cells.get(subject)
            if series is None:
                line.append("")
                continue
            cpu = "" if series.cpu is None else f", {_short(series.cpu * 1e3)} ms CPU"
            line.append(f"{_short(series.median)} ({_short(series.p99)}{cpu})")
        lines.append(line)
    return lines


def target_table(found: Sequence[Verdict]) -> list[list[str]]:
    """Header and one row per target; `floor` is what the bare programs reach against the same peer."""
    lines = [["measure", "of", "over", "ratio", "at most", "floor", ""]]
    for one in found:
        target = one.target
        lines.append(
            [
                one.row + (" (CPU)" if target.cpu else ""),
                target.subject,
                target.against,
                f"{one.ratio:.2f}",
                f"{target.at_most:.2f}",
                "" if one.floor is None else f"{one.floor:.2f}",
                "met" if one.met else "missed",
            ]
        )
    return lines


def plain(lines: Sequence[Sequence[str]]) -> str:
    """Aligned columns for a terminal."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """A table of Markdown."""
    head, *body = lines
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *body))


def machine() -> str:
    """What the numbers were measured on."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    versions = [f"Linux {platform.release()}"]
    for program in (interpreter(), "containerd", "runc", "crun", "conmon"):
        try:
            said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
        except FileNotFoundError:
            continue
        words = said.splitlines()[0].split() if said else []
        versions.append(f"{Path(program).name} {next((w for w in words if w[:1].isdigit()), '?')}")
    load = os.getloadavg()[0]
    return f"commit {commit}, {os.cpu_count()} CPUs, load {load:.1f} at the end, {', '.join(versions)}"


def write(results: Results, directory: Path, *, publish: bool, whole: bool) -> None:
    """Write JSON, plot and text below `directory`; with `publish` RESULTS.md, too, its plot if `whole`."""
    found = verdicts(results)
    now = datetime.datetime.now(datetime.UTC)
    directory.mkdir(parents=True, exist_ok=True)
    stem = directory / now.strftime("%Y%m%d-%H%M%S")
    described = machine()
    targets = [
        {"row": one.row, "subject": one.target.subject, "against": one.target.against, "cpu": one.target.cpu,
         "ratio": one.ratio, "at_most": one.target.at_most, "floor": one.floor}
        for one in found
    ]  # fmt: skip
    data = {"date": now.isoformat(), "machine": described, "rows": results.as_json(), "targets": targets}
    stem.with_suffix(".json").write_text(json.dumps(data, indent=1) + "\n")
    picture = plot.svg(found)
    stem.with_suffix(".svg").write_text(picture)
    section = (
        f"{_HEADING}{now:%Y-%m-%d %H:%M} UTC\n\n{described}\n\n"
        f"{markdown(target_table(found))}\n\n{markdown(table(results))}\n"
    )
    stem.with_suffix(".md").write_text(section)
    if publish:
        RESULTS.write_text(with_run(RESULTS.read_text() if RESULTS.exists() else "", section))
        if whole:
            PLOT.write_text(picture)
    print(plain(table(results)), plain(target_table(found)), f"written: {stem}.json, .svg, .md", sep="\n\n")


def with_run(text: str, section: str) -> str:
    """RESULTS.md with one more run, without those that are too old."""
    runs = [_HEADING + part.strip() + "\n" for part in text.split(_HEADING)[1:]]
    kept = [section, *runs][:_KEPT_RUNS]
    return "\n".join([_INTRODUCTION, f"![ratios of the newest whole run]({PLOT.name})\n", *kept])


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
