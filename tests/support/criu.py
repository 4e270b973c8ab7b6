"""A CRIU that works with the kernel of the machine, or a loud skip."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def need_criu() -> Path:
    """The directory of a working `criu`, for the front of PATH; skips the test when there is none.

    A distribution's CRIU can be older than the kernel. $NODED_TEST_CRIU names a newer one.
    """
    program = os.environ.get("NODED_TEST_CRIU") or shutil.which("criu")
    if program is None:
        pytest.skip("NO CRIU: install criu, or name one with NODED_TEST_CRIU=/path/to/criu")
    done = subprocess.run([program, "check"], capture_output=True, text=True, timeout=30, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip() or "no word").splitlines()[-1]
        pytest.skip(f"{program} DOES NOT WORK ON THIS KERNEL ({last}): name a newer one with NODED_TEST_CRIU")
    return Path(program).resolve().parent


def need_crun_with_criu() -> None:
    """Skip the test, loudly, when the crun in PATH is built without support for CRIU."""
    program = shutil.which("crun")
    if program is None:
        pytest.skip("NO CRUN")
    done = subprocess.run([program, "features"], capture_output=True, text=True, timeout=30, check=False)
    if '"run.oci.crun.checkpoint.enabled": "true"' not in done.stdout:
        pytest.skip(f"{program} IS BUILT WITHOUT CRIU: put another one first in PATH")
