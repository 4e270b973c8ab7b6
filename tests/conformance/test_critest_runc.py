"""critest on runc; under `make prove` three times in a row, each in another order."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.root, pytest.mark.long]


@pytest.mark.parametrize("run", range(3))
def test_the_conformance_suite_passes_without_retries(conform, run, counts):
    if run >= counts(1, 3):
        pytest.skip("further orders of the specs are for `make prove`")
    conform("runc", run=run)
