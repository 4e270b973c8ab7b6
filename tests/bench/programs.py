"""Programs that are measured, and those that do the work: Python and the OCI runtimes."""

from __future__ import annotations

import functools
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from noded.runtimes.wrapper import wrapper_script

_SYSTEM_PYTHON = "/usr/bin/python3"
_UNIFIED = Path("/sys/fs/cgroup/unified/cgroup.controllers")
RUNTIMES = ("runc", "crun")


@functools.cache
def interpreter() -> str:
    """The system's Python, which the packages run noded with, where it takes this environment's modules.

    Builds differ: the optimised one of a distribution takes 10 to 15 % less CPU for Python code than a plain
    one of the same version.
    """
    query = [_SYSTEM_PYTHON, "-IS", "-c", "import sysconfig; print(sysconfig.get_config_var('SOABI'))"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return sys.executable
    return _SYSTEM_PYTHON if said == sysconfig.get_config_var("SOABI") else sys.executable


def installed() -> list[str]:
    """The runtimes of this machine."""
    return [name for name in RUNTIMES if shutil.which(name)]


def runtime_program(name: str, directory: Path) -> str:
    """Path of a program that works like runtime `name`.

    crun refuses a host with v1 controllers where v2 has some too; noded hides that mount from its
    commands that look at cgroups. Its peer and the floor get the same, for the same commands.
    """
    program = shutil.which(name)
    assert program is not None, f"{name} is not installed"
    if name != "crun" or not _UNIFIED.exists() or not _UNIFIED.read_text().strip():
        return program
    wrapped, path = directory / "crun-wrapped", directory / "crun"
    wrapped.write_text(wrapper_script(program))
    path.write_text(
        "#!/bin/sh\n"
        "for word; do case $word in create|exec|update) "
        f'exec {shlex.quote(str(wrapped))} "$@" ;; esac; done\n'
        f'exec {shlex.quote(program)} "$@"\n'
    )
    wrapped.chmod(0o755)
    path.chmod(0o755)
    return str(path)
