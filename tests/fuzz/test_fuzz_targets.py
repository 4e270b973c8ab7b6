"""Each target for a moment; `make fuzz` runs them for as long as you like."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

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
    command = [sys.executable, "-m", "tests.fuzz", "--seconds=1", f"--corpus={tmp_path}", "reference"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "reference" in done.stdout
