"""Commands in a running task of the real runc shim: output, codes, timeouts, streams, nothing left."""

from __future__ import annotations

import os
import socket

import pytest
import trio
import trio.testing
from test_shim_life_cycle import with_pod

from noded.errors import DeadlineExceeded, FailedPrecondition, NodedError

LIMIT = 16 << 20


def with_task(driver, main, *args, **options):
    async def wrapped(sandbox):
        task = await driver.run(sandbox, *(args or ("sleep", "1000")), **options)

        async def run(*command, timeout_seconds=20.0, limit_bytes=LIMIT):
            process = driver.process(*command)
            return await sandbox.exec_sync(
                task.ref, process, timeout_seconds=timeout_seconds, limit_bytes=limit_bytes
            )

        await main(sandbox, task, run)
        assert not [path for path in os.listdir(task.ref.bundle) if path.startswith("exec-")]

    with_pod(driver, wrapped)


def test_output_and_exit_code_come_back(driver):
    async def main(sandbox, task, run):
        result = await run("sh", "-c", "echo out; echo err >&2; exit 5")
        assert (result.exit_code, result.stdout, result.stderr) == (5, b"out\n", b"err\n")
        assert (await run("true")).exit_code == 0
        assert (await run("sh", "-c", "kill -9 $$")).exit_code == 137
        assert (await run("sh", "-c", "exit 255")).exit_code == 255

    with_task(driver, main)


def test_output_beyond_the_limit_is_cut_and_does_not_stop_the_command(driver):
    async def main(sandbox, task, run):
        result = await run(
            "sh", "-c", "dd if=/dev/zero bs=1M count=8 2>/dev/null; echo end >&2", limit_bytes=1000
        )
        assert (result.stdout, result.stderr) == (bytes(1000), b"end\n")
        whole = await run("sh", "-c", "dd if=/dev/zero bs=1M count=8 2>/dev/null")
        assert len(whole.stdout) == 8 << 20

    with_task(driver, main)


def test_a_missing_command_is_named(driver):
    async def main(sandbox, task, run):
        with pytest.raises(FailedPrecondition, match=r"no-such.*check command and PATH"):
            await run("no-such")

    with_task(driver, main)


def test_a_command_in_a_dead_task_is_refused(driver):
    async def main(sandbox, task, run):
        with trio.fail_after(10):
            await sandbox.wait(task.ref)
        with pytest.raises(NodedError):
            await run("true")

    with_task(driver, main, "true")


def test_a_late_command_is_killed_with_all_that_it_started(driver):
    async def main(sandbox, task, run):
        before = driver.cgroups.procs(task.ref.cgroup)
        with trio.fail_after(10), pytest.raises(DeadlineExceeded, match=r"did not finish within 0\.5 s"):
            await run("sh", "-c", "sleep 1000 & sleep 1000", timeout_seconds=0.5)
        assert driver.cgroups.procs(task.ref.cgroup) == before

    with_task(driver, main)


def test_a_cancelled_command_is_killed(driver):
    async def main(sandbox, task, run):
        before = driver.cgroups.procs(task.ref.cgroup)
        for seconds in (0.001, 0.01, 0.03, 0.3):
            with trio.move_on_after(seconds):
                await run("sleep", "1000")
            assert driver.cgroups.procs(task.ref.cgroup) == before

    with_task(driver, main)


def test_a_background_child_does_not_hold_the_call_up(driver):
    async def main(sandbox, task, run):
        with trio.fail_after(10):
            result = await run("sh", "-c", "sleep 1000 & echo done")
        assert result.stdout == b"done\n"

    with_task(driver, main)


async def read(fd, seconds=10.0):
    with trio.fail_after(seconds):
        await trio.lowlevel.wait_readable(fd)
        return os.read(fd if isinstance(fd, int) else fd.fileno(), 65536)


def test_a_stream_carries_input_and_output(driver):
    async def main(sandbox, task, run):
        process = driver.process("sh", "-c", "cat; echo end >&2; exit 6")
        stream = await sandbox.exec_open(task.ref, process, terminal=False, stdin=True)
        os.write(stream.stdin, b"hello")
        assert await read(stream.stdout) == b"hello"
        stream.close_stdin()
        assert await read(stream.stderr) == b"end\n"
        with trio.fail_after(10):
            assert await stream.wait() == 6
        stream.close()
        stream.close()
        assert await stream.wait() == 6
        await trio.testing.wait_all_tasks_blocked(0.1)

    with_task(driver, main)


def test_a_terminal_has_its_size_and_is_hung_up_when_the_client_leaves(driver):
    async def main(sandbox, task, run):
        before = driver.cgroups.procs(task.ref.cgroup)
        process = driver.process("sh", "-c", "read line; stty size; echo err >&2; sleep 1000")
        stream = await sandbox.exec_open(task.ref, process, terminal=True, stdin=True)
        await stream.resize(101, 33)
        os.write(stream.stdin, b"go\n")
        text = b""
        while b"err" not in text:
            text += await read(stream.stdout)
        assert b"33 101" in text
        stream.close()
        with trio.fail_after(10):
            await stream.wait()
        assert driver.cgroups.procs(task.ref.cgroup) == before
        await trio.testing.wait_all_tasks_blocked(0.1)

    with_task(driver, main)


def test_a_stream_of_a_missing_command_fails_with_its_name(driver):
    async def main(sandbox, task, run):
        with pytest.raises(FailedPrecondition, match="no-such"):
            await sandbox.exec_open(task.ref, driver.process("no-such"), terminal=False, stdin=True)

    with_task(driver, main)


def test_attached_clients_see_output_and_give_input(driver):
    async def main(sandbox, task, run):
        clients = [socket.socket(fileno=await sandbox.attach_open(task.ref)) for _ in range(2)]
        clients[0].send(b"one\n")
        for client in clients:
            assert await read(client) == b"\2got one\n"
        watcher = socket.socket(fileno=await sandbox.attach_open(task.ref))
        watcher.close()  # who never gave input does not end it
        clients[1].send(b"bad\n")
        assert {await read(clients[0]), await read(clients[0])} == {b"\2got bad\n", b"\3err\n"}
        clients[0].send(b"two\n")
        assert await read(clients[0]) == b"\2got two\n"
        clients[0].shutdown(socket.SHUT_WR)  # ends the input, since the task is made so
        with trio.fail_after(10):
            assert (await sandbox.wait(task.ref)).code == 9
        assert await read(clients[0]) == b""
        for client in clients:
            client.close()
        with pytest.raises(FailedPrecondition, match="does not run"):
            await sandbox.attach_open(task.ref)

    script = "while read line; do echo got $line; [ $line = bad ] && echo err >&2; done; exit 9"
    with_task(driver, main, "sh", "-c", script, stdin=True, stdin_once=True)


def test_input_stays_open_over_attachments_unless_it_is_for_one(driver):
    async def main(sandbox, task, run):
        for word in (b"one\n", b"two\n"):
            client = socket.socket(fileno=await sandbox.attach_open(task.ref))
            client.send(word)
            assert await read(client) == b"\2" + word
            client.close()
        await sandbox.kill(task.ref, 9)

    with_task(driver, main, "cat", stdin=True)


def test_an_idle_pod_costs_no_cpu(driver):
    async def main(sandbox, task, run):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sandbox.wait, task.ref)
            await trio.testing.wait_all_tasks_blocked(0.1)
            began = os.times()
            await trio.sleep(0.5)  # what is measured is that nothing happens
            ended = os.times()
            nursery.cancel_scope.cancel()
        assert ended.user + ended.system - began.user - began.system < 0.1

    with_task(driver, main)
