"""The programs of OCI runtimes, as anything but noded must call them on this machine."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

from noded.runtimes.wrapper import wrapper_script

_UNIFIED = Path("/sys/fs/cgroup/unified/cgroup.controllers")
RUNTIMES = ("runc", "crun")


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
