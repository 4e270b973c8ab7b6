"""critest on a containerd shim, which noded drives over ttrpc."""

from __future__ import annotations

import shutil

import pytest

pytestmark = pytest.mark.root

SHIM = "containerd-shim-runc-v2"


def test_the_conformance_suite_passes_without_retries(conform, counts):
    if counts(1, 2) == 1:
        pytest.skip("the other handlers are for `make prove`")
    if shutil.which(SHIM) is None:
        pytest.skip(f"{SHIM} is not installed")
    conform("shim", {"type": "shim"})
