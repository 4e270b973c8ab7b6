"""Each target for a moment; `make fuzz` runs them for as long as you like."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from tests.fuzz import report
from tests.fuzz.mutations import mutated
from tests.fuzz.targets import TARGETS

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", TARGETS)
def test_a_parser_refuses_what_it_cannot_take_and_keeps_little(name):
    target = TARGETS[name]
    for seed in target.seeds:
        target.run(seed)

    @settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
    @given(mutated(target.seeds))
    def run(data):
        target.run(data)

    run()


def test_the_command_runs_targets_for_a_time_and_says_how_much(tmp_path):
    results = tmp_path / "results.md"
    options = [f"--corpus={tmp_path}", f"--results={results}", "--seconds=1", "--seed=7"]
    command = [sys.executable, "-m", "tests.fuzz", *options, "reference"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "reference" in done.stdout
    cells = [cell.strip() for cell in results.read_text().splitlines()[-1].strip("|").split("|")]
    assert (cells[0], cells[6], cells[-1]) == ("reference", "7", "clean")
    assert int(cells[1]) > 100


def test_a_result_takes_the_place_of_the_targets_earlier_one(tmp_path):
    path = tmp_path / "results.md"
    guided = "stat::number_of_executed_units: 553621\nstat::new_units_added:          556\n"
    assert report.figures(f"x\n{guided}stat::peak_rss_mb:              49\n") == (553621, 556, 49, "coverage")
    assert report.figures("Traceback") == (0, 0, 0, "")
    for target, inputs in (("spdy", 1), ("http", 2), ("spdy", 3)):
        report.put(
            path, report.Outcome(target, inputs, 600, 0, 49, "seeds", 1, "abc", "2026-01-01 00:00", "clean")
        )
    rows = [line.split(" | ")[:2] for line in path.read_text().splitlines() if line.endswith("| clean |")]
    assert rows == [["| http", "2"], ["| spdy", "3"]]
