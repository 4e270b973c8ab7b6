"""Two minutes of soak in continuous integration, ten under `make prove`; `make soak` for hours."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.world import IMAGE
from tests.soak.soak import soak
from tests.support import images

pytestmark = [pytest.mark.root, pytest.mark.long]

SHRINK_RUNS = 6  # a failure is to be found again with `make soak`; here it must not cost the whole budget


def test_random_steps_keep_to_the_model_and_leave_nothing(tmp_path: Path, seed, counts):
    layout = images.write_layout(images.busybox_image(), tmp_path / "layout", IMAGE)
    outcome = soak(seed, layout, tmp_path, seconds=counts(120, 600), shrink_runs=SHRINK_RUNS)
    print(f"{outcome.steps} steps in {outcome.seconds:.0f} s, {outcome.faults} of them faults")
    assert not outcome.error, outcome.error
    assert outcome.faults
    assert "INTERNAL" not in outcome.codes
