"""The figures of comparison.md, from the runs in tests/bench/RESULTS.md."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

RESULTS = Path(__file__).resolve().parent.parent / "tests" / "bench" / "RESULTS.md"
BEGIN, END = "<!-- measured -->\n", "<!-- end of measured -->\n"
OURS, THEIRS = "noded runc", "containerd runc"

# What comparison.md shows: name there, row of RESULTS.md, and whether CPU time is compared.
SHOWN = (
    ("pod start, one at a time", "pod start", False),
    ("pod start, 50 pods by 8 clients", "pod start, 50 pods, 8 clients, per pod", False),
    ("stop and remove", "stop + remove", False),
    ("ExecSync", "ExecSync true", False),
    ("pull of 8 gzip layers, time", "pull, 8 gzip layers", False),
    ("pull of 8 gzip layers, CPU", "pull, 8 gzip layers", True),
    ("pull of 8 zstd layers, time", "pull, 8 zstd layers", False),
    ("pull of 8 zstd layers, CPU", "pull, 8 zstd layers", True),
    ("pull of an image that is present", "pull of a present image, 8 gzip layers", False),
    ("list of 20 containers, CPU", "ListContainers, 20 containers", True),
    ("statistics of 500 containers", "ListContainerStats, 500 containers", False),
    ("idle CPU with 50 pods", "idle CPU, 50 pods, per minute", False),
    ("memory of the idle daemon", "PSS of daemon, idle", False),
    ("memory of the daemon with 20 pods", "PSS of daemon, 20 pods", False),
    ("memory beside the daemon, per pod", "PSS of helpers per pod, 20 pods", False),
    ("restart until the first correct list, 100 pods", "restart to first correct list, 100 pods", False),
)
_CELL = re.compile(r"(?P<median>[0-9.]+)(?: \([^)]*?(?:(?P<cpu>[0-9.]+) ms CPU)?\))?")


class Run(NamedTuple):
    """One run of the bench.

    Args:
        date: as its heading has it.
        machine: the line below that.
        rows: medians and CPU times by name of the row and column; None for a CPU time that is not given.
    """

    date: str
    machine: str
    rows: dict[str, dict[str, tuple[float, float | None]]]


def runs(text: str) -> list[Run]:
    """Read RESULTS.md, newest run first."""
    found = []
    for part in text.split("\n## Run of ")[1:]:
        date, _, rest = part.partition("\n")
        rows: dict[str, dict[str, tuple[float, float | None]]] = {}
        columns: list[str] = []
        for line in rest.splitlines():
            cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
            if cells and cells[0] == "measure":
                columns = cells[1:]
            elif cells and OURS in columns and not cells[0].startswith("---"):
                name = re.sub(r" \[[^]]*\]$", "", cells[0])
                values = zip(columns, map(_CELL.fullmatch, cells[1:]), strict=True)
                rows[name] = {
                    column: (float(cell["median"]), float(cell["cpu"]) if cell["cpu"] else None)
                    for column, cell in values
                    if cell
                }
        found.append(Run(date, rest.strip().partition("\n")[0], rows))
    return found


def measured(text: str) -> str:
    """What stands between the marks of comparison.md: each figure from the newest run that has it."""
    known = runs(text)
    lines, dates = [], {}
    for name, row, cpu in SHOWN:
        for run in known:
            ratio = _ratio(run, row, cpu=cpu)
            if ratio is not None:
                lines.append(f"| {name} | {_short(ratio)} | {run.date} |")
                dates[run.date] = run.machine
                break
    machines = [f"- {date}: {machine}" for date, machine in dates.items()]
    return "\n".join(
        ["| measure, runc under both | ratio | run |", "|---|---:|---|", *lines, "", *machines, ""]
    )


def _ratio(run: Run, row: str, *, cpu: bool) -> float | None:
    """noded's part of containerd's."""
    values = [run.rows.get(row, {}).get(column, (0.0, None))[cpu] for column in (OURS, THEIRS)]
    return values[0] / values[1] if values[0] is not None and values[1] else None


def _short(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 2 else f"{ratio:.1f}"


def filled(page: str, text: str) -> str:
    """comparison.md with the figures of RESULTS.md. Raises: ValueError for a page without the marks."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}{measured(text)}{END}{after}"
