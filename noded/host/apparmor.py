"""AppArmor profiles in the kernel: which there are, and loading one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from noded.errors import DeadlineExceeded, FailedPrecondition
from noded.host.lsm import apparmor_profiles

__all__ = ["apparmor_profiles", "load", "own_label"]

_LABEL = Path("/proc/self/attr/apparmor/current")
_PARSER = "apparmor_parser"
_DEADLINE_SECONDS = 60.0  # a profile compiles in a fraction of a second, unless the node is on its knees


def own_label() -> str:
    """Return the name of the profile that confines this process, "" = none."""
    try:
        text = _LABEL.read_text().strip("\0\n")
    except OSError:
        return ""
    name = text.partition(" (")[0]
    return "" if name == "unconfined" else name


def load(source: str) -> None:
    """Load a profile, or replace the one of the same name; containers under it follow at once. Blocks.

    Raises: FailedPrecondition without apparmor_parser or with what it says; DeadlineExceeded.
    """
    program = shutil.which(_PARSER) or shutil.which(_PARSER, path="/usr/sbin:/sbin")
    if program is None:
        raise FailedPrecondition(f"{_PARSER} was not found: install the package apparmor")
    try:
        done = subprocess.run(
            # Nothing is written to the cache: the profile is not a file of the administrator's.
            [program, "--replace", "--skip-cache"],
            input=source.encode(), capture_output=True, timeout=_DEADLINE_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise DeadlineExceeded(f"{_PARSER} did not end within {_DEADLINE_SECONDS:.0f} s") from None
    if done.returncode:
        said = " ".join(done.stderr.decode(errors="replace").split())
        raise FailedPrecondition(f"{_PARSER} exit code {done.returncode}: {said or 'it said nothing'}")
