"""Which release of runsc there is, and one that can forward ports, or a loud skip."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from noded.runtimes.features import parse_version, version_tuple

FIRST_THAT_FORWARDS = (20260824,)  # without ending the pod by it


@cache
def release(program: str) -> tuple[int, ...]:
    """The release of a program, () when it does not tell."""
    done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=30, check=False)
    return version_tuple(parse_version(done.stdout or done.stderr)[0])


def forwards(program: str | None) -> bool:
    """Whether it can connect into a network stack of its own."""
    return program is not None and release(program) >= FIRST_THAT_FORWARDS


def named_runsc() -> str | None:
    """The one that the environment names to be tested beside that in PATH."""
    return os.environ.get("NODED_TEST_RUNSC") or None


@contextmanager
def own_root(directory: Path) -> Iterator[str]:
    """The line of a handler's table that gives runsc a directory of its own.

    Releases of 2026 mount an empty network namespace there, for all their sandboxes, and leave it.
    """
    directory.mkdir()
    try:
        yield f'root = "{directory}"\n'
    finally:
        mount = directory / "null-netns"
        if mount.exists():
            subprocess.run(["umount", str(mount)], check=False, capture_output=True)


def need_runsc_that_forwards() -> str:
    """The path of one, $NODED_TEST_RUNSC or that in PATH; skips the test when there is none."""
    candidates = [program for program in (named_runsc(), shutil.which("runsc")) if program]
    for program in candidates:
        if forwards(program):
            return program
    there = ", ".join(f"{one} is {'.'.join(map(str, release(one)))}" for one in candidates) or "there is none"
    pytest.skip(
        f"NO RUNSC OF RELEASE {FIRST_THAT_FORWARDS[0]} OR LATER ({there}): name one with "
        "NODED_TEST_RUNSC=/path/to/runsc"
    )
