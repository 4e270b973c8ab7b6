"""Processes, file events and facts of the real machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from noded.config import Config
from noded.errors import NotFound
from noded.host import facts, inotify, processes
from noded.host.processes import ProcessIdentity

pytestmark = pytest.mark.root

STUBBORN = (
    "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint(1, flush=True)\ntime.sleep(60)"
)


@pytest.fixture
def spawn() -> Iterator[Callable[..., int]]:
    """Starts a process that nobody else reaps; its first line of output has come."""
    pids: list[int] = []

    def start(*arguments: str, ready: bool = False) -> int:
        read, write = os.pipe()
        pid = os.posix_spawnp(
            arguments[0], arguments, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, write, 1)]
        )
        pids.append(pid)
        os.close(write)
        if ready:
            os.read(read, 1)
        os.close(read)
        return pid

    yield start
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            continue


def identity(pid: int) -> ProcessIdentity:
    found = ProcessIdentity.of(pid)
    assert found is not None
    return found


def test_a_zombie_is_dead_but_exists_until_reaped(spawn: Callable[..., int]) -> None:
    pid = spawn("sh", "-c", "exit 7")
    who = identity(pid)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert who.exists()
    assert not who.alive()
    assert processes.reap(pid) == 7
    assert processes.reap(pid) is None
    assert not who.exists()
    assert ProcessIdentity.of(pid) is None


def test_a_reused_pid_is_another_process() -> None:
    me = identity(os.getpid())
    assert me.alive()
    stranger = ProcessIdentity(me.pid, me.start_time - 1)
    assert not stranger.alive()
    assert not processes.kill_identity(stranger)
    with pytest.raises(NotFound):
        stranger.open_pidfd()


def test_reaping_leaves_running_children_and_strangers_alone(spawn: Callable[..., int]) -> None:
    assert processes.reap(spawn("sleep", "60")) is None
    assert processes.reap(1) is None


def test_terminate_is_gentle_then_hard_then_idempotent(spawn: Callable[..., int]) -> None:
    async def main() -> None:
        polite = identity(spawn("sleep", "60"))
        await processes.terminate(polite, 10)
        assert not polite.exists()
        stubborn = identity(spawn(sys.executable, "-c", STUBBORN, ready=True))
        await processes.terminate(stubborn, 0.05)
        assert not stubborn.exists()
        await processes.terminate(stubborn, 10)

    trio.run(main)


def test_a_pidfd_tells_the_end(spawn: Callable[..., int]) -> None:
    async def main() -> None:
        who = identity(spawn("sleep", "60"))
        fd = who.open_pidfd()
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(processes.wait_pidfd, fd)
                await trio.testing.wait_all_tasks_blocked()
                assert processes.kill_identity(who)
        os.close(fd)
        assert processes.reap(who.pid) == 128 + signal.SIGKILL

    trio.run(main)


def test_children_and_descendants_are_listed(spawn: Callable[..., int]) -> None:
    shell = spawn("sh", "-c", "sleep 60 & echo 1; wait", ready=True)
    assert shell in processes.children_of(os.getpid())
    (sleep,) = processes.children_of(shell)
    assert processes.descendants(os.getpid()) >= {shell, sleep}
    os.kill(sleep, signal.SIGKILL)
    assert processes.children_of(2**22 + 1) == set()


def test_a_subreaper_inherits_orphans_and_reaps_them_by_pid() -> None:
    code = (
        "import os, subprocess\n"
        "read, write = os.pipe()\n"
        "from noded.host import processes\n"
        "processes.become_subreaper()\n"
        "script = f'(read x <&{read}; exit 3) & echo $!'\n"
        "shell = subprocess.Popen(['sh', '-c', script], stdout=subprocess.PIPE, pass_fds=[read])\n"
        "pid = int(shell.stdout.readline())\n"
        "shell.wait()\n"
        "os.close(write)\n"
        "os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)\n"
        "print(processes.reap(pid))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.stdout == "3\n", done.stderr


def test_the_oom_score_can_be_raised_and_a_refusal_is_no_error(spawn: Callable[..., int]) -> None:
    pid = spawn("sleep", "60")
    assert processes.set_oom_score_adj(pid, 500)
    assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "500\n"
    assert not processes.set_oom_score_adj(2**22 + 1, 0)
    lowered = processes.set_oom_score_adj(pid, -900)
    assert lowered == ("CAP_SYS_RESOURCE" in processes.effective_capabilities())


def test_facts_describe_this_machine() -> None:
    found = facts.collect(Config(cgroup_driver="cgroupfs"))
    assert found.kernel >= (4, 0)
    assert "CAP_SYS_ADMIN" in found.bounding_capabilities
    assert len(found.boot_id) == 36
    assert {"memory", "pids"} <= found.cgroup_controllers
    assert found.may_lower_oom_score_adj == ("CAP_SYS_RESOURCE" in processes.effective_capabilities())


def test_file_events_arrive_with_names_and_one_watch_per_path(tmp_path: Path) -> None:
    async def main() -> None:
        events = inotify.Inotify()
        wd = events.watch(tmp_path, inotify.IN_CREATE | inotify.IN_MOVED_TO)
        assert events.watch(tmp_path, inotify.IN_CREATE | inotify.IN_MOVED_TO) == wd
        (tmp_path / "a").touch()
        (tmp_path / "a").rename(tmp_path / "b")
        assert await events.read() == [
            inotify.Event(wd, inotify.IN_CREATE, "a"),
            inotify.Event(wd, inotify.IN_MOVED_TO, "b"),
        ]
        events.unwatch(wd)
        events.unwatch(wd)
        assert [event.mask for event in await events.read()] == [inotify.IN_IGNORED]
        with pytest.raises(NotFound, match=r"cannot watch .*missing"):
            events.watch(tmp_path / "missing", inotify.IN_CREATE)
        events.close()
        events.close()
        with pytest.raises(trio.ClosedResourceError):
            await events.read()

    trio.run(main)


def test_lost_events_are_surfaced(tmp_path: Path) -> None:
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())

    async def main() -> None:
        events = inotify.Inotify()
        events.watch(tmp_path, inotify.IN_ATTRIB | inotify.IN_MODIFY)
        for name in ("a", "b"):
            (tmp_path / name).touch()
        for _ in range(limit // 2 + 10):  # alternate: equal neighbours are merged
            os.utime(tmp_path / "a")
            os.utime(tmp_path / "b")
        seen = []
        while not any(event.mask & inotify.IN_Q_OVERFLOW for event in seen):
            seen = await events.read()
        assert seen[-1].wd == -1
        events.close()

    trio.run(main)


def test_closing_ends_a_waiting_read(tmp_path: Path) -> None:
    async def main() -> None:
        events = inotify.Inotify()
        events.watch(tmp_path, inotify.IN_CREATE)

        async def reading() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await events.read()

        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(reading)
                await trio.testing.wait_all_tasks_blocked()
                events.close()

    trio.run(main)
