"""CRIU, the program that runtimes use to save a container's processes and to bring them back."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from noded.errors import FailedPrecondition, NodedError
from noded.runtimes.command import clean_environment, run

_CHECK_SECONDS = 10.0
_LOG_BYTES = 65536  # of the end of CRIU's log, which can be long
# criu/log.c: "(00.123456) Error (criu/file.c:12): words", without the time on standard error.
_ERROR = re.compile(r"Error \([^)]*\): *(.*)")


async def check_criu(environment: Mapping[str, str]) -> None:
    """Make sure that CRIU is there and works with this kernel.

    It is asked each time (some 30 ms): a package upgrade changes the answer, and so does a reboot.

    Raises: FailedPrecondition with the cure; DeadlineExceeded.
    """
    path = clean_environment(environment)["PATH"]
    program = shutil.which("criu", path=path)
    if program is None:
        raise FailedPrecondition(
            "cannot checkpoint or restore containers: the program criu is not in PATH, install CRIU"
        )
    done = await run([program, "check"], timeout_seconds=_CHECK_SECONDS, environment=environment)
    if done.returncode != 0:
        said = (done.stderr + done.stdout).decode(errors="replace")
        raise FailedPrecondition(
            f"cannot checkpoint or restore containers: {program} does not work with this kernel, "
            f"`criu check` says: {first_error(said) or 'nothing'}"
        )


def first_error(text: str) -> str:
    """The first error that CRIU reports in a log: those after it follow from it."""
    found = _ERROR.search(text)
    return found[1].strip() if found else ""


def explain(error: NodedError, log: Path) -> NodedError:
    """Return the error with CRIU's own word, which runtimes only point to."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _LOG_BYTES))
            said = first_error(file.read().decode(errors="replace"))
    except OSError:
        return error
    return type(error)(f"{error}; CRIU says: {said}") if said else error
