# ruff: noqa: ASYNC240 - files of a scratch directory
"""A task from create to delete, with the real programs."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import trio
import trio.testing

from noded.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument, Unavailable
from noded.model.runtime import SandboxStart, TaskState


def test_a_task_runs_logs_and_reports_its_exit_code(driver):
    async def main():
        sandbox = await driver.sandbox()
        task = driver.task("sh", "-c", "echo out; echo err >&2; exit 7")
        pid = await sandbox.create(task)
        assert pid > 0
        assert await sandbox.state(task.ref) is TaskState.CREATED
        await sandbox.start(task.ref)
        with trio.fail_after(20):
            ended = await sandbox.wait(task.ref)
        assert (ended.code, ended.oom_killed, ended.message) == (7, False, "")
        assert sorted(driver.log_lines(task)) == ["err", "out"]
        assert await sandbox.state(task.ref) is TaskState.STOPPED
        assert await sandbox.wait(task.ref) == ended
        await sandbox.delete(task.ref)
        assert await sandbox.state(task.ref) is TaskState.MISSING

    trio.run(main)


def test_the_runtime_inherits_no_descriptor_of_the_daemon(driver, tmp_path):
    # Whatever it got, the container's processes got; and runsc cannot work with some numbers.
    program, seen = tmp_path / "program", tmp_path / "seen"
    program.write_text(f"""#!/bin/sh
[ "$1" = --version ] || ls /proc/$$/fd >>{seen}
exec {shutil.which(driver.quirks.program)} "$@"
""")
    program.chmod(0o755)

    async def main():
        sandbox = await driver.sandbox(path=str(program))
        task = driver.task("sleep", "100")
        with contextlib.ExitStack() as stack:
            for number in range(3, 100):  # the daemon's own are above
                stack.callback(os.close, fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, number))
            await sandbox.create(task)
        assert max(map(int, seen.read_text().split())) < 100
        await sandbox.delete(task.ref)

    trio.run(main)


def test_the_monitor_runs_in_its_own_cgroup(driver):
    async def main():
        sandbox = await driver.sandbox()
        task = driver.task("sleep", "100")
        init = await sandbox.create(task)
        monitors = driver.cgroups.procs(task.monitor_cgroup)
        assert len(monitors) == 1
        assert monitors & driver.cgroups.procs(task.ref.cgroup) == set()
        assert init in driver.cgroups.procs(task.ref.cgroup)
        await sandbox.delete(task.ref)

    trio.run(main)


def test_kill_ends_a_task_and_a_task_that_is_gone_cannot_be_killed_again(driver):
    async def main():
        sandbox = await driver.sandbox()
        task = driver.task("sleep", "100")
        await sandbox.create(task)
        await sandbox.start(task.ref)
        assert await sandbox.state(task.ref) is TaskState.RUNNING
        await sandbox.kill(task.ref, signal.SIGKILL)
        with trio.fail_after(20):
            assert (await sandbox.wait(task.ref)).code == 137
        await sandbox.kill(task.ref, signal.SIGKILL)
        await sandbox.kill(task.ref, signal.SIGTERM, everything=True)
        await sandbox.delete(task.ref)
        await sandbox.kill(task.ref, signal.SIGKILL)

    trio.run(main)


def test_a_signal_reaches_every_process_of_the_task(driver):
    async def main():
        sandbox = await driver.sandbox()
        child = 'trap "echo child; exit" TERM; echo ready; while true; do sleep 99 & wait; done'
        script = f"trap 'exit 3' TERM; sh -c '{child}' & while true; do wait; done"
        task = driver.task("sh", "-c", script)
        await sandbox.create(task)
        await sandbox.start(task.ref)
        await driver.wait_log(task, "ready")
        with trio.fail_after(10):
            await sandbox.kill(task.ref, signal.SIGTERM, everything=True)
            assert (await sandbox.wait(task.ref)).code == 3
        assert driver.log_lines(task)[0] == "ready"
        await sandbox.delete(task.ref)

    trio.run(main)


def test_delete_kills_what_is_alive_and_is_idempotent(driver):
    async def main():
        sandbox = await driver.sandbox()
        task = driver.task("sleep", "100")
        await sandbox.delete(task.ref)
        await sandbox.create(task)
        await sandbox.start(task.ref)
        with trio.fail_after(3):
            await sandbox.delete(task.ref)
        await sandbox.delete(task.ref)
        assert (await sandbox.wait(task.ref)).code == 255

    trio.run(main)


def test_a_created_task_that_was_never_started_is_deleted(driver):
    async def main():
        sandbox = await driver.sandbox()
        task = driver.task("sleep", "100")
        await sandbox.create(task)
        await sandbox.delete(task.ref)

    trio.run(main)


def test_a_missing_command_is_named_in_the_error(driver):
    async def main():
        sandbox = await driver.sandbox()
        task = driver.task("no-such-command")
        with pytest.raises(FailedPrecondition) as caught:
            await sandbox.create(task)
        first_line = str(caught.value).splitlines()[0]
        assert "no-such-command" in first_line
        assert "check command and PATH" in first_line
        assert driver.quirks.program in first_line
        await sandbox.delete(task.ref)

    trio.run(main)


def test_a_bundle_that_the_runtime_cannot_read_gives_its_words(driver):
    async def main():
        sandbox = await driver.sandbox()
        task = driver.task("true")
        (task.ref.bundle / "config.json").write_text("{")
        with pytest.raises(FailedPrecondition, match="could not create"):
            await sandbox.create(task)
        await sandbox.delete(task.ref)

    trio.run(main)


def test_what_the_monitor_says_before_it_starts_is_in_the_error(driver):
    async def main():
        sandbox = await driver.sandbox()
        task = driver.task("true")
        Path(task.log_path).mkdir()
        with pytest.raises(FailedPrecondition, match="open log file"):
            await sandbox.create(task)
        await sandbox.delete(task.ref)

    trio.run(main)


def test_a_log_path_that_conmon_would_cut_is_refused(driver):
    async def main():
        sandbox = await driver.sandbox()
        task = driver.task("true")
        object.__setattr__(task, "log_path", "/tmp/a:b.log")
        with pytest.raises(InvalidArgument, match="log_path"):
            await sandbox.create(task)

    trio.run(main)


@pytest.mark.parametrize("seconds", [0.0, 0.004, 0.01, 0.02, 0.03, 0.045])
def test_a_cancelled_create_leaves_nothing_after_delete(driver, seconds):
    async def main():
        sandbox = await driver.sandbox()
        task = driver.task("sleep", "100")
        with trio.move_on_after(seconds):
            await sandbox.create(task)
        await sandbox.delete(task.ref)

    trio.run(main)


def test_a_create_that_takes_too_long_is_killed_and_names_its_stage(driver, tmp_path):
    async def main():
        slow = tmp_path / "slow"
        slow.write_text('#!/bin/sh\ncase "$*" in *create*) sleep 100;; *) exit 1;; esac\n')
        slow.chmod(0o755)
        sandbox = await driver.sandbox(path=str(slow))
        task = driver.task("true", deadline_seconds=0.5)
        with trio.fail_after(10), pytest.raises(DeadlineExceeded, match="stopped while waiting for"):
            await sandbox.create(task)
        await sandbox.delete(task.ref)

    trio.run(main)


def test_a_monitor_whose_daemon_died_before_the_record_is_found(driver, tmp_path):
    async def main():
        sandbox = await driver.sandbox()
        task = driver.task("sleep", "100")
        await sandbox.create(task)
        (task.ref.bundle / "task.json").unlink()
        await (await driver.sandbox()).delete(task.ref)

    trio.run(main)


def test_a_task_is_deleted_when_the_runtime_has_been_uninstalled(driver):
    async def main():
        sandbox = await driver.sandbox()
        task = driver.task("sleep", "100")
        await sandbox.create(task)
        await sandbox.start(task.ref)
        gone = await driver.sandbox(path="/nonexistent/runtime")
        await gone.delete(task.ref)

    trio.run(main)


def test_a_missing_program_says_what_to_install(driver):
    async def main():
        with pytest.raises(Unavailable, match=r"/nonexistent/runtime.*install the package"):
            await driver.runtime(path="/nonexistent/runtime").features()

    trio.run(main)


def test_a_new_driver_sees_an_exit_that_happened_meanwhile(driver):
    async def main():
        task = driver.task("sh", "-c", "exit 9")
        first = await driver.sandbox()
        await first.create(task)
        await first.start(task.ref)
        with trio.fail_after(20):
            ended = await first.wait(task.ref)
        second = await driver.sandbox()
        assert await second.wait(task.ref) == ended
        await second.delete(task.ref)

    trio.run(main)


def test_a_new_driver_waits_for_a_task_that_still_runs(driver):
    async def main():
        task = driver.task("sleep", "100")
        first = await driver.sandbox()
        await first.create(task)
        await first.start(task.ref)
        second = await driver.sandbox()
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                exits = []

                async def watch():
                    exits.append(await second.wait(task.ref))

                nursery.start_soon(watch)
                await trio.testing.wait_all_tasks_blocked()
                await second.kill(task.ref, signal.SIGTERM)
                await second.kill(task.ref, signal.SIGKILL)
        assert exits[0].code == 137
        await second.delete(task.ref)

    trio.run(main)


def test_update_changes_the_limit_that_the_kernel_enforces(driver):
    async def main():
        sandbox = await driver.sandbox()
        task = driver.task("sleep", "100", memory_bytes=64 << 20)
        await sandbox.create(task)
        await sandbox.start(task.ref)
        await sandbox.update(task.ref, {"memory": {"limit": 96 << 20, "swap": 96 << 20}})
        directory = driver.cgroups.directory(task.ref.cgroup, "memory")
        values = [(directory / name) for name in ("memory.limit_in_bytes", "memory.max")]
        assert [int(path.read_text()) for path in values if path.exists()] == [96 << 20]
        await sandbox.delete(task.ref)

    trio.run(main)


def test_a_sandbox_container_is_started_restarted_and_destroyed(driver):
    async def main():
        runtime = driver.runtime()
        ref = driver.sandbox_ref
        spec = driver.spec("sleep", "100", cgroup=f"/{driver.prefix}/infra")
        start = SandboxStart(ref, spec, monitor_cgroup=f"/{driver.prefix}/monitors")
        await runtime.destroy_sandbox(ref)
        sandbox = await runtime.start_sandbox(start)
        first = await sandbox.infra_pid()
        assert Path(f"/proc/{first}").exists()
        again = await driver.runtime().start_sandbox(start)
        second = await again.infra_pid()
        assert second not in (None, first)
        assert not Path(f"/proc/{first}").exists()
        attached = await driver.runtime().attach_sandbox(ref)
        assert await attached.infra_pid() == second
        await runtime.destroy_sandbox(ref)
        assert await attached.infra_pid() is None
        await runtime.destroy_sandbox(ref)
        assert list(ref.bundle.iterdir()) == []

    trio.run(main)


def test_a_sandbox_without_infra_spec_starts_nothing(driver):
    async def main():
        runtime = driver.runtime()
        sandbox = await runtime.start_sandbox(SandboxStart(driver.sandbox_ref, None))
        assert await sandbox.infra_pid() is None
        await runtime.destroy_sandbox(driver.sandbox_ref)

    trio.run(main)


def test_a_half_made_sandbox_container_is_replaced(driver, tmp_path):
    async def main():
        ref = driver.sandbox_ref
        spec = driver.spec("no-such-command", cgroup=f"/{driver.prefix}/infra")
        with pytest.raises(FailedPrecondition):
            await driver.runtime().start_sandbox(SandboxStart(ref, spec))
        spec["process"]["args"] = ["sleep", "100"]
        sandbox = await driver.runtime().start_sandbox(SandboxStart(ref, spec))
        assert await sandbox.infra_pid()
        await driver.runtime().destroy_sandbox(ref)

    trio.run(main)


def test_features_tell_the_version_and_are_asked_for_once(driver):
    async def main():
        runtime = driver.runtime()
        features = await runtime.features()
        assert features.version[0].isdigit()
        assert features.update
        assert features.recursive_read_only_mounts
        assert await runtime.features() is features

    trio.run(main)


def test_the_environment_of_the_daemon_does_not_reach_the_runtime(driver, tmp_path, monkeypatch):
    async def main():
        monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
        spy = tmp_path / "spy"
        spy.write_text(f'#!/bin/sh\nenv > {tmp_path}/seen\nexec {driver.quirks.program} "$@"\n')
        spy.chmod(0o755)
        await driver.runtime(path=str(spy), environment={"EXTRA": "1"}).features()
        seen = (tmp_path / "seen").read_text()
        assert "NOTIFY_SOCKET" not in seen
        assert "EXTRA=1" in seen

    trio.run(main)


def test_a_record_names_the_processes_by_start_time(driver):
    async def main():
        sandbox = await driver.sandbox()
        task = driver.task("sleep", "100")
        init = await sandbox.create(task)
        record = json.loads((task.ref.bundle / "task.json").read_text())
        assert record["init"][0] == init
        # A record whose start times do not match names nobody: neither process may be hit.
        monitor = record["monitor"][0]
        forged = {"log_path": "", "monitor": [os.getpid(), 1], "init": [os.getpid(), 1]}
        (task.ref.bundle / "task.json").write_text(json.dumps(forged))
        await sandbox.kill(task.ref, signal.SIGKILL)
        (task.ref.bundle / "task.json").write_text(json.dumps(record))
        assert Path(f"/proc/{monitor}").exists()
        await sandbox.delete(task.ref)

    trio.run(main)


@pytest.mark.parametrize("milliseconds", [2, 8, 14, 20, 26, 34, 45])
def test_a_daemon_killed_during_create_leaves_nothing_that_a_new_one_cannot_delete(driver, milliseconds):
    task = driver.task("sleep", "100")

    async def create():
        sandbox = await driver.sandbox()
        os.write(ready, b"x")
        await sandbox.create(task)
        await trio.sleep_forever()

    started, ready = os.pipe()
    daemon = os.fork()
    if daemon == 0:
        try:
            trio.run(create)
        finally:
            os._exit(1)
    os.close(ready)
    os.read(started, 1)
    os.close(started)

    async def main():
        await trio.sleep(milliseconds / 1000)
        os.kill(daemon, signal.SIGKILL)
        os.waitpid(daemon, 0)  # noqa: ASYNC222 - it has ended
        await trio.sleep(0.05)  # a new daemon does not start faster than a forked child becomes conmon
        sandbox = await driver.sandbox()
        with trio.fail_after(15):
            await sandbox.delete(task.ref)

    trio.run(main)


def test_the_container_inherits_no_descriptor(driver):
    async def main():
        sandbox = await driver.sandbox()
        task = driver.task("sh", "-c", "echo $(ls /proc/self/fd)")
        await sandbox.create(task)
        await sandbox.start(task.ref)
        with trio.fail_after(20):
            await sandbox.wait(task.ref)
        assert driver.log_lines(task) == ["0 1 2 3"]  # 3 is the directory that ls reads
        await sandbox.delete(task.ref)

    trio.run(main)
