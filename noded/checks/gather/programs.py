"""Programs that noded runs, and what plugins say."""

from __future__ import annotations

import os
import shutil
import subprocess

from noded.checks import facts
from noded.checks.gather.kernel import PATH
from noded.runtimes.features import parse_version

_VERSION_SECONDS = 5.0


def look(name: str) -> facts.Program:
    """Find a program and ask for its version."""
    path = shutil.which(name, path=PATH)
    if path is None:
        return facts.Program(name)
    try:
        done = subprocess.run(
            [path, "--version"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=_VERSION_SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return facts.Program(name, os.path.abspath(path))
    return facts.Program(name, os.path.abspath(path), parse_version(done.stdout)[0])
