"""critest and crictl: those of the host, else built from their Go module with the host's Go.

A build is kept in build/cri-tools/VERSION. Set CRI_TOOLS to a directory with other ones.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
VERSION = "v1.36.0"
_BUILD_SECONDS = 600
_MODULE = "sigs.k8s.io/cri-tools"
_COMMANDS = {"critest": ("go", "test", "-c"), "crictl": ("go", "build")}


class NotHere(Exception):
    """The program is not installed and cannot be built; the text is for a skipped test."""


def find(name: str) -> str:
    """Path of critest or crictl; builds it when it is nowhere, which takes minutes the first time.

    Raises: NotHere.
    """
    if directory := os.environ.get("CRI_TOOLS"):
        return str(Path(directory) / name)
    if found := shutil.which(name):
        return found
    directory = REPOSITORY / "build" / "cri-tools" / VERSION
    directory.mkdir(parents=True, exist_ok=True)
    program = directory / name
    with (directory / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # test workers would each build it
        if not program.exists():
            _build(name, program)
    return str(program)


def _build(name: str, program: Path) -> None:
    if shutil.which("go") is None:
        raise NotHere(f"{name.upper()} IS NOT HERE, NOR GO TO BUILD IT: its tests were not run")
    with tempfile.TemporaryDirectory(dir=program.parent) as scratch:
        Path(scratch, "go.mod").write_text(f"module tools\n\nrequire {_MODULE} {VERSION}\n")
        environment = {**os.environ, "GOFLAGS": "-mod=mod", "CGO_ENABLED": "0"}
        environment.setdefault("HOME", scratch)
        try:
            done = subprocess.run(
                [*_COMMANDS[name], "-o", f"{scratch}/{name}", f"{_MODULE}/cmd/{name}"],
                cwd=scratch,
                env=environment,
                capture_output=True,
                text=True,
                timeout=_BUILD_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise NotHere(f"BUILDING {name.upper()} TOOK TOO LONG: its tests were not run") from None
        if done.returncode != 0:
            said = " ".join(done.stderr.split())[-300:]
            raise NotHere(f"{name.upper()} COULD NOT BE BUILT: its tests were not run: {said}")
        Path(scratch, name).rename(program)
