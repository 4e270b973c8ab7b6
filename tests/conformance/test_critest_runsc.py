"""critest on gVisor; what its kernel does otherwise is in the table."""

from __future__ import annotations

import shutil

import pytest

pytestmark = pytest.mark.root


def test_the_conformance_suite_passes_but_for_what_gvisor_does_otherwise(conform, counts):
    if counts(1, 2) == 1:
        pytest.skip("the other handlers are for `make prove`")
    if shutil.which("runsc") is None:
        pytest.skip("runsc is not installed")
    conform("runsc", {"type": "runsc", "platform": "ptrace", "network": "host"})
