"""Cgroups on the real kernel, in a parent of each test's own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from noded.errors import FailedPrecondition, NotFound, Unavailable
from noded.host import cgroups as cgroups_module
from noded.host import oom
from noded.host.cgroup_hierarchies import read_hierarchies
from noded.host.cgroups import Cgroups, detect, own
from noded.host.namespaces import in_fresh_thread
from noded.model.host import CgroupDriver, CgroupMode
from tests.support.kernel_log import tells_of_victim

pytestmark = pytest.mark.root

Start = Callable[..., "subprocess.Popen[bytes]"]

FORKS = """
import os, sys, time
print("ready", flush=True)
while True:
    try:
        if os.fork() == 0: time.sleep(60); os._exit(0)
    except OSError: time.sleep(0.001)
"""
# Told to go on by one byte: by then the process is in its cgroup.
EATS = """
import os, sys
os.read(0, 1)
data = []
while True: data.append(b"x" * 1048576)
"""


@pytest.fixture
def cgroups() -> Cgroups:
    return Cgroups(detect()[0], CgroupDriver.CGROUPFS)


@pytest.fixture
def parent(cgroups: Cgroups) -> Iterator[str]:
    """The place of a cgroup that does not outlive the test."""
    place = f"/noded-test-{os.urandom(6).hex()}"
    yield place
    cgroups.kill(place)
    cgroups.remove(place)
    assert not cgroups.exists(place)


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a process with pipes; ends it after the test."""
    started: list[subprocess.Popen[bytes]] = []

    def run(*arguments: str) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()


def limit_memory(cgroups: Cgroups, place: str, bytes_: int) -> None:
    directory = cgroups.directory(place, "memory")
    assert directory is not None
    if cgroups.mode is CgroupMode.V2:
        (directory / "memory.max").write_text(str(bytes_))
        (directory / "memory.swap.max").write_text("0")
    else:
        (directory / "memory.limit_in_bytes").write_text(str(bytes_))


def test_a_cgroup_is_made_in_every_hierarchy_ready_for_processes(
    cgroups: Cgroups, parent: str, start: Start
) -> None:
    place = f"{parent}/a/b"
    cgroups.create(place)
    cgroups.create(place)
    assert cgroups.exists(place)
    process = start("cat")
    cgroups.attach(place, process.pid)
    assert cgroups.procs(place) == cgroups.procs(parent) == {process.pid}
    entries = Path(f"/proc/{process.pid}/cgroup").read_text().splitlines()
    used = [line for line in entries if not line.startswith("0::") or cgroups.mode is CgroupMode.V2]
    assert all(line.endswith(place) for line in used)


def test_removing_is_idempotent_and_takes_what_is_below(cgroups: Cgroups, parent: str) -> None:
    cgroups.remove(parent)
    cgroups.create(f"{parent}/a/b")
    cgroups.create(f"{parent}/c")
    cgroups.remove(parent)
    cgroups.remove(parent)
    assert not cgroups.exists(parent)


def test_a_cgroup_left_in_one_hierarchy_only_is_removed_too(cgroups: Cgroups, parent: str) -> None:
    cgroups.create(parent)
    last = cgroups.directory(parent, "pids")
    cgroups.remove(parent)
    assert last is not None
    last.mkdir()
    assert cgroups.exists(parent)
    cgroups.remove(parent)
    assert not last.exists()


def test_removing_a_cgroup_in_use_names_the_process(cgroups: Cgroups, parent: str, start: Start) -> None:
    cgroups.create(parent)
    process = start("cat")
    cgroups.attach(parent, process.pid)
    with pytest.raises(Unavailable, match=f"processes {process.pid} are in it"):
        cgroups.remove(parent, timeout_seconds=0.05)


def test_removing_waits_for_a_process_that_is_about_to_end(
    cgroups: Cgroups, parent: str, start: Start
) -> None:
    cgroups.create(parent)
    process = start("cat")
    cgroups.attach(parent, process.pid)
    os.kill(process.pid, signal.SIGTERM)
    cgroups.remove(parent)
    assert not cgroups.exists(parent)


def test_killing_ends_a_fork_bomb_and_processes_below(cgroups: Cgroups, parent: str, start: Start) -> None:
    place = f"{parent}/bomb"
    cgroups.create(place)
    directory = cgroups.directory(place, "pids")
    assert directory is not None
    (directory / "pids.max").write_text("100")
    shell = start("sh", "-c", 'read x; exec "$@"', "sh", sys.executable, "-c", FORKS)
    cgroups.attach(place, shell.pid)
    assert shell.stdin is not None
    assert shell.stdout is not None
    shell.stdin.write(b"\n")
    shell.stdin.flush()
    assert shell.stdout.readline() == b"ready\n"
    cgroups.kill(parent)
    assert cgroups.procs(parent) == set()
    assert shell.wait(timeout=10) == -signal.SIGKILL
    cgroups.kill(parent)


def test_a_frozen_cgroup_can_be_killed(cgroups: Cgroups, parent: str, start: Start) -> None:
    cgroups.create(parent)
    process = start("cat")
    cgroups.attach(parent, process.pid)
    directory = cgroups.directory(parent, "freezer")
    assert directory is not None
    if cgroups.mode is CgroupMode.V2:
        (directory / "cgroup.freeze").write_text("1")
    else:
        (directory / "freezer.state").write_text("FROZEN")
    cgroups.kill(parent)
    assert process.wait(timeout=10) == -signal.SIGKILL


def test_killing_a_missing_cgroup_succeeds_and_noded_does_not_kill_itself(
    cgroups: Cgroups, parent: str, monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    cgroups.kill(parent)
    cgroups.create(parent)
    process = start("cat")
    cgroups.attach(parent, process.pid)
    monkeypatch.setattr(cgroups_module.os, "getpid", lambda: process.pid)
    with pytest.raises(FailedPrecondition, match="holds noded itself"):
        cgroups.kill(parent)
    monkeypatch.undo()
    assert process.poll() is None


def test_attaching_names_what_is_gone(cgroups: Cgroups, parent: str, start: Start) -> None:
    with pytest.raises(NotFound, match="no such cgroup"):
        cgroups.attach(parent, os.getpid())
    cgroups.create(parent)
    process = start("true")
    process.wait()
    with pytest.raises(NotFound, match="no such process"):
        cgroups.attach(parent, process.pid)


def test_accounting_is_read_and_missing_cgroups_have_none(
    cgroups: Cgroups, parent: str, start: Start
) -> None:
    assert cgroups.cpu_usage_ns(parent) is None
    assert cgroups.memory_working_set_bytes(parent) is None
    assert cgroups.oom_kills(parent) is None
    cgroups.create(parent)
    process = start("sh", "-c", "read x; while :; do :; done")
    cgroups.attach(parent, process.pid)
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.flush()
    while not cgroups.cpu_usage_ns(parent):
        pass
    assert (cgroups.memory_working_set_bytes(parent) or 0) >= 0
    assert cgroups.oom_kills(parent) == 0


def test_the_rules_of_v2_hold_on_the_unified_hierarchy(start: Start) -> None:
    unified = [hierarchy for hierarchy in read_hierarchies() if hierarchy.v2]
    if not unified:
        pytest.skip("no cgroup2 is mounted")
    cgroups = Cgroups(CgroupMode.V2, CgroupDriver.CGROUPFS, unified)
    parent = f"/noded-test-{os.urandom(6).hex()}"
    try:
        cgroups.create(f"{parent}/a/b")
        enabled, available = (
            (unified[0].path(f"{parent}/a") / name).read_text().split()
            for name in ("cgroup.subtree_control", "cgroup.controllers")
        )
        assert set(enabled) == set(available)
        first, second = start("cat"), start("cat")
        cgroups.attach(f"{parent}/a/b", first.pid)
        (unified[0].path(parent) / "a" / "b" / "cgroup.freeze").write_text("1")
        with pytest.raises(Unavailable, match=f"processes {first.pid} are in it"):
            cgroups.remove(parent, timeout_seconds=0.05)
        cgroups.kill(parent)
        assert first.wait(timeout=10) == -signal.SIGKILL
        cgroups.attach(f"{parent}/a/b", second.pid)
        cgroups._kill_frozen(parent)  # as before Linux 5.14
        assert second.wait(timeout=10) == -signal.SIGKILL
        if available:
            cgroups.attach(cgroups_with_process := f"{parent}/a/b", start("cat").pid)
            with pytest.raises(FailedPrecondition, match="gives its children no controllers"):
                cgroups.create(f"{cgroups_with_process}/c")
    finally:
        cgroups.kill(parent)
        cgroups.remove(parent)
    assert not cgroups.exists(parent)


def test_own_places_are_known() -> None:
    assert all(place.startswith("/") for place in own().values())


def test_an_oom_kill_is_counted_and_told_by_the_kernels_log_after_the_cgroup_is_gone(
    cgroups: Cgroups, parent: str, start: Start
) -> None:
    quiet, eater = f"{parent}/quiet", f"{parent}/eater"
    for place in (quiet, eater):
        cgroups.create(place)
        limit_memory(cgroups, place, 32 << 20)
    process = start(sys.executable, "-c", EATS)
    cgroups.attach(eater, process.pid)
    assert cgroups.oom_kills(eater) == 0
    process.communicate(b"\n", timeout=30)
    assert process.returncode == -signal.SIGKILL
    assert (cgroups.oom_kills(eater), cgroups.oom_kills(quiet)) == (1, 0)
    cgroups.remove(parent)
    assert cgroups.oom_kills(eater) is None
    told = tells_of_victim(eater)
    assert oom.killed_in(eater) == told
    assert oom.killed_in(parent) == told, "its own, or that of a cgroup below it"
    assert not oom.killed_in(quiet)


def entered(cgroups: Cgroups, place: str, start: Start) -> tuple[bool, int]:
    """Start a process from a thread that goes into the cgroup first; whether it could, and the pid."""

    def inside() -> tuple[bool, int]:
        return cgroups.enter(place), start("sleep", "1000").pid

    return in_fresh_thread(inside, "test-enter")


@pytest.mark.skipif(detect()[0] is CgroupMode.V2, reason="threads of v2 have no cgroups of their own")
def test_what_a_thread_starts_in_a_cgroup_is_there_from_the_beginning_and_the_daemon_is_not(
    cgroups: Cgroups, parent: str, start: Start
) -> None:
    place = f"{parent}/monitor"
    cgroups.create(place)
    before = own()
    could, pid = entered(cgroups, place, start)
    assert could
    # The kernel takes an ended thread out of its cgroup some time after it can be joined.
    deadline = time.monotonic() + 10
    while cgroups.procs(place) != {pid}:
        assert time.monotonic() < deadline, cgroups.procs(place)
        os.sched_yield()
    found = dict(line.split(":", 2)[1:] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines())
    assert all(path == place for names, path in found.items() if names)
    assert own() == before


def test_a_cgroup_that_is_not_there_cannot_be_entered(cgroups: Cgroups, parent: str, start: Start) -> None:
    assert entered(cgroups, f"{parent}/missing", start)[0] is False


def test_no_thread_goes_into_a_frozen_cgroup(cgroups: Cgroups, parent: str, start: Start) -> None:
    cgroups.create(parent)
    freezer = cgroups.directory(parent, "freezer")
    if freezer is None or not (freezer / "freezer.state").exists():
        pytest.skip("no freezer of v1 here")
    (freezer / "freezer.state").write_text("FROZEN")
    try:
        assert entered(cgroups, parent, start)[0] is False
    finally:
        (freezer / "freezer.state").write_text("THAWED")
