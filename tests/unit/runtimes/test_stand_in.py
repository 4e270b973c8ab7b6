"""The script that stands for a container, run with a runtime that is a script, too."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import trio

from noded.errors import FailedPrecondition
from noded.host.processes import ProcessIdentity
from noded.runtimes.stand_in import ensure_stand_in, start_by_stand_in

RUNTIME = """#!/bin/sh
# A runtime whose `start` writes to the container's output and whose `wait` knows the exit code.
echo "$@" >>{log}
for word in "$@"; do
    case $word in
        create) exit {create} ;;
        start) [ {start} = 0 ] && echo output || echo broken >&2; cat; exit {start} ;;
        wait) echo '{{"id":"c1","exitStatus":{code}}}'; exit {waited} ;;
    esac
done
"""


class World:
    """A bundle, a runtime, and what a monitor does with them."""

    def __init__(self, directory: Path) -> None:
        self.bundle = directory / "a bundle"
        self.bundle.mkdir()
        self.log = directory / "commands"
        self.script = directory / "stand-in.sh"
        self.output = directory / "output"
        self._runtime = directory / "runtime"

    def create(self, *, create: int = 0, start: int = 0, code: int = 42, waited: int = 0) -> int:
        """Run the script as a monitor does; return its exit status."""
        text = RUNTIME.format(log=self.log, create=create, start=start, code=code, waited=waited)
        self._runtime.write_text(text)
        self._runtime.chmod(0o700)
        ensure_stand_in(self.script, [str(self._runtime), "--root=/a b"])
        argv = [
            self.script,
            "--root=/a b",
            "create",
            "--bundle",
            self.bundle,
            "--pid-file",
            self.pid_file,
            "c1",
        ]
        with self.output.open("wb") as output:
            return subprocess.run(
                argv, input=b"input\n", stdout=output, stderr=subprocess.STDOUT, check=False
            ).returncode

    @property
    def pid_file(self) -> Path:
        return self.bundle / "pidfile"

    def identity(self) -> ProcessIdentity:
        found = ProcessIdentity.of(int(self.pid_file.read_text()))
        assert found is not None
        return found

    def start(self, identity: ProcessIdentity | None) -> None:
        async def main() -> None:
            with trio.fail_after(10):
                await start_by_stand_in(self.bundle, identity, "runtime could not start container c1")

        trio.run(main)


@pytest.fixture
def world(tmp_path, monkeypatch):
    return World(tmp_path)


def end_of(identity: ProcessIdentity) -> int:
    """Wait for the stand-in, which is our child: the tests are its subreaper."""
    _, status = os.waitpid(identity.pid, 0)
    return os.waitstatus_to_exitcode(status)


pytestmark = pytest.mark.usefixtures("subreaper")


def test_the_stand_in_starts_when_told_and_ends_with_the_containers_code(world):
    assert world.create() == 0
    identity = world.identity()
    assert world.log.read_text().count("\n") == 1
    world.start(identity)
    assert end_of(identity) == 42
    assert world.output.read_text() == "output\ninput\n"
    verbs = [line.split()[-2:] for line in world.log.read_text().splitlines()]
    assert verbs[1:] == [["start", "c1"], ["wait", "c1"]]
    assert all(line.startswith("--root=/a b ") for line in world.log.read_text().splitlines())


def test_a_create_that_fails_leaves_no_stand_in(world):
    assert world.create(create=3) == 3
    assert not world.pid_file.exists()


def test_a_start_that_fails_is_told_and_ends_the_stand_in(world):
    world.create(start=5)
    identity = world.identity()
    with pytest.raises(FailedPrecondition, match="could not start container c1: exit status 5"):
        world.start(identity)
    assert end_of(identity) == 128


def test_a_sandbox_that_is_gone_counts_as_killed(world):
    world.create(waited=1)
    identity = world.identity()
    world.start(identity)
    assert end_of(identity) == 137


def test_a_stand_in_that_is_gone_cannot_start_anything(world):
    world.create()
    identity = world.identity()
    os.kill(identity.pid, 9)
    assert end_of(identity) == -9
    for known in (identity, None):
        with pytest.raises(FailedPrecondition, match="gone"):
            world.start(known)


def test_the_script_is_written_once_and_anew_when_flags_change(world):
    ensure_stand_in(world.script, ["/usr/bin/runsc", "--platform=ptrace"])
    first = world.script.stat().st_ino
    ensure_stand_in(world.script, ["/usr/bin/runsc", "--platform=ptrace"])
    assert world.script.stat().st_ino == first
    ensure_stand_in(world.script, ["/usr/bin/runsc", "--platform=kvm"])
    assert "--platform=kvm" in world.script.read_text()
