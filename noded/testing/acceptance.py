"""The acceptance suite: what every runtime handler does, seen from the CRI.

Each test takes the fixtures of `noded.testing.fixtures`. What a runtime cannot do by its nature is
named in its `HandlerCase`; the suite then checks that it is refused with a clear word.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import time
from pathlib import Path

import pytest

from noded.errors import NodedError
from noded.proto.runtime import v1 as cri
from noded.testing.cases import Ability, HandlerCase
from noded.testing.node import TestNode, eventually
from noded.testing.pods import TestContainer, TestPod
from noded.testing.sessions import Session
from noded.wire.channels import Channel

pytestmark = pytest.mark.root

_SLEEP = "exec busybox sleep 1000"
_SIGKILLED = 128 + signal.SIGKILL


def test_the_handler_is_available_and_listed(node: TestNode, handler: HandlerCase) -> None:
    reply = node.runtime("Status", cri.StatusRequest(), cri.StatusResponse)
    assert handler.name in [item.name for item in reply.runtime_handlers]


def test_a_container_lives_and_leaves_nothing(node: TestNode, handler: HandlerCase) -> None:
    pod = node.run_pod(handler.name)
    assert pod.ready
    assert pod.ip
    container = pod.create("echo hello; exit 42")
    assert container.status().state == cri.ContainerState.CONTAINER_CREATED
    container.start()
    ended = container.wait()
    assert (ended.exit_code, ended.reason) == (42, "Error")
    assert ended.created_at < ended.started_at <= ended.finished_at <= time.time_ns()
    assert container.log() == "hello\n"
    pod.remove()
    assert pod.id not in node.pods()
    for name in ("containers", "pods", "exits"):
        left = [path.name for path in (node.state / name).iterdir()] if (node.state / name).is_dir() else []
        assert not [one for one in left if one.startswith((pod.id, container.id))]
    assert _processes_of(pod.id) == _processes_of(container.id) == []


def test_directories_of_pods_and_containers_are_root_s_alone(node: TestNode, pod: TestPod) -> None:
    container = pod.run(_SLEEP)
    for path in (
        node.state / "pods" / pod.id,
        node.state / "containers" / container.id,
        node.state / "exits",
    ):
        assert path.stat().st_mode & 0o777 == 0o700, path
    for path in (node.state / "runtimes").glob("*/"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_container_that_ends_well_is_completed(pod: TestPod) -> None:
    ended = pod.run("true").wait()
    assert (ended.exit_code, ended.reason) == (0, "Completed")


def test_a_container_killed_from_inside_ends_with_128_and_the_signal(pod: TestPod) -> None:
    # As process 1 of a PID namespace it could not kill itself.
    ended = pod.run("busybox sh -c 'kill -9 $$'; exit $?").wait()
    assert ended.exit_code == _SIGKILLED


def test_a_command_that_does_not_exist_is_named(pod: TestPod) -> None:
    with pytest.raises(NodedError, match="no-such-command"):
        pod.run("/bin/no-such-command", "x")


def test_two_containers_share_the_network_and_not_the_files(pod: TestPod) -> None:
    web = pod.run("exec httpd -f -p 80 -h /www", name="web")
    other = pod.run(f"echo mine >/tmp/x; {_SLEEP}", name="other")
    get = r"printf 'GET / HTTP/1.0\r\n\r\n' | busybox nc 127.0.0.1 80"
    eventually(lambda: b"Hello" in other.exec(get).stdout, 10, "the web server answers in the pod")
    assert web.exec("cat", "/tmp/x").exit_code != 0
    assert other.exec("cat", "/tmp/x").stdout == b"mine\n"
    assert web.exec("hostname").stdout == other.exec("hostname").stdout


def test_the_pod_answers_on_its_address(pod: TestPod) -> None:
    pod.run("exec httpd -f -p 80 -h /www")
    import urllib.request

    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def answer() -> bytes:
        try:
            with opener.open(f"http://{pod.ip}/", timeout=5) as reply:
                return bytes(reply.read())
        except OSError:
            return b""

    assert b"Hello" in eventually(answer, 10, "the web server answers on the pod's address")


def test_containers_share_pids_if_the_pod_says_so(node: TestNode, handler: HandlerCase) -> None:
    if not handler.can(Ability.SHARED_PIDS):
        with pytest.raises(NodedError, match="PID"):
            node.run_pod(handler.name, share_pids=True)
        return
    pod = node.run_pod(handler.name, share_pids=True)
    pod.run("exec busybox sleep 4321", name="one")
    other = pod.run(_SLEEP, name="other")
    assert b"sleep 4321" in other.exec("ps", "-o", "args").stdout
    pod.remove()


def test_exec_tells_output_and_exit_code(pod: TestPod) -> None:
    container = pod.run(_SLEEP)
    answer = container.exec("echo out; echo problem >&2; exit 3")
    assert (answer.stdout, answer.stderr, answer.exit_code) == (b"out\n", b"problem\n", 3)
    assert container.exec("busybox sh -c 'kill -9 $$'; exit $?").exit_code == _SIGKILLED


def test_exec_brings_a_lot_of_output_whole(pod: TestPod) -> None:
    container = pod.run(_SLEEP)
    answer = container.exec("busybox head -c 1000000 /dev/zero")
    assert len(answer.stdout) == 1_000_000


def test_exec_of_a_missing_command_fails_and_harms_nothing(pod: TestPod) -> None:
    container = pod.run(_SLEEP)
    assert _outcome(container, "/bin/no-such-command", "x") != "0"
    assert container.exec("true").exit_code == 0


def test_exec_that_takes_too_long_is_killed(pod: TestPod, handler: HandlerCase) -> None:
    container = pod.run(_SLEEP)
    started = time.monotonic()
    with pytest.raises(NodedError, match="1 s"):
        container.exec("busybox sleep 4242", timeout_seconds=1)
    assert time.monotonic() - started < 10 * handler.slow
    assert b"sleep 4242" not in container.exec("ps", "-o", "args").stdout
    assert container.running


def test_a_log_has_both_streams_and_partial_lines(pod: TestPod) -> None:
    container = pod.run("echo out; echo err >&2; echo -n part")
    container.wait()
    entries = [line.split(b" ", 3)[1:] for line in container.log_path.read_bytes().splitlines()]
    assert sorted(map(tuple, entries)) == [
        (b"stderr", b"F", b"err"),
        (b"stdout", b"F", b"out"),
        (b"stdout", b"P", b"part"),
    ]


def test_a_log_reopens_after_a_rotation(pod: TestPod) -> None:
    container = pod.run("i=0; while :; do echo line $i; i=$((i+1)); busybox sleep 0.02; done")
    rotated = container.log_path.with_suffix(".1")
    eventually(lambda: "line 3\n" in container.log(), 10, "the first lines are in the log")
    container.log_path.rename(rotated)
    container.reopen_log()
    eventually(lambda: container.log().count("\n") > 3, 10, "new lines are in the new file")
    container.stop()
    container.wait()
    numbers = [int(line.split()[1]) for line in (container.log(rotated) + container.log()).splitlines()]
    assert numbers == list(range(len(numbers)))


def test_a_terminal_is_a_terminal(pod: TestPod) -> None:
    container = pod.run("if test -t 0 && test -t 1; then echo yes; else echo no; fi", tty=True)
    container.wait()
    assert container.log().replace("\r", "") == "yes\n"


def test_a_terminal_has_the_size_of_its_clients(pod: TestPod) -> None:
    container = pod.run("while read -r line; do echo $line $(busybox stty size); done", tty=True, stdin=True)
    with container.attach(tty=True) as session:
        session.resize(91, 37)
        # The size and the input go different ways.
        eventually(lambda: _echo(session, "size") and b"37 91" in session.seen[Channel.STDOUT], 20, "37 91")


def test_attached_clients_hear_and_talk(pod: TestPod) -> None:
    container = pod.run("while read -r line; do echo heard $line; echo oops >&2; done", stdin=True)
    with container.attach() as first, container.attach() as second:
        # An attachment is certain when something was heard through it.
        second.type("one\n")
        second.until(Channel.STDOUT, b"heard one\n")
        first.type("two\n")
        first.until(Channel.STDOUT, b"heard two\n")
        second.until(Channel.STDOUT, b"heard two\n")
        second.type("three\n")
        first.until(Channel.STDOUT, b"heard three\n")
        first.until(Channel.STDERR, b"oops\n")
    assert container.running
    with container.attach() as third:
        third.type("four\n")
        third.until(Channel.STDOUT, b"heard four\n")
    eventually(lambda: "heard four\n" in container.log(), 10, "the log has it, too")


def test_a_command_has_streams_and_an_end(pod: TestPod) -> None:
    container = pod.run(_SLEEP)
    with container.open("cat; echo bad >&2; exit 7") as session:
        session.type("through\n")
        session.until(Channel.STDOUT, b"through\n")
        session.end_input()
        assert session.exit_code() == 7
        assert (session.seen[Channel.STDOUT], session.seen[Channel.STDERR]) == (b"through\n", b"bad\n")


def test_a_command_has_a_terminal_with_a_size(pod: TestPod) -> None:
    container = pod.run(_SLEEP)
    with container.open("while read -r line; do echo $line $(busybox stty size); done", tty=True) as session:
        session.resize(92, 38)
        eventually(lambda: _echo(session, "size") and b"38 92" in session.seen[Channel.STDOUT], 20, "38 92")


def test_a_port_is_forwarded(pod: TestPod, handler: HandlerCase) -> None:
    own = handler.can(Ability.LOOPBACK_FORWARD)
    container = pod.run(f"exec httpd -f -p {'127.0.0.1:' if own else ''}8080 -h /www")
    get = r"printf 'GET / HTTP/1.0\r\n\r\n' | busybox nc 127.0.0.1 8080"
    eventually(lambda: b"Hello" in container.exec(get).stdout, 10, "the web server answers in the pod")
    for _ in range(2):
        with pod.forward(8080) as session:
            session.send(0, b"GET / HTTP/1.0\r\n\r\n")
            assert b"200 OK" in session.until(0, b"Hello")
    with pod.forward(8081) as session:
        session.until(1, b"8081")
        if not own:
            session.until(1, b"all addresses")
    assert container.running


# On port 8080 of the loopback alone: what is posted to it comes back.
ECHO_SERVER = r"""
busybox mkdir -p /tmp/site/cgi-bin
printf '#!/bin/sh\nprintf "Content-Type: text/plain\\r\\n\\r\\n"\nexec busybox cat\n' >/tmp/site/cgi-bin/echo
busybox chmod +x /tmp/site/cgi-bin/echo
exec httpd -f -p 127.0.0.1:8080 -h /tmp/site
"""


def echo_request(length: int) -> bytes:
    """What goes before so many bytes that are to come back from it."""
    return b"POST /cgi-bin/echo HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % length


def test_a_server_on_the_loopback_alone_gets_and_gives_a_lot(pod: TestPod, handler: HandlerCase) -> None:
    if not handler.can(Ability.LOOPBACK_FORWARD):
        pytest.skip("this release of the runtime cannot connect to the loopback of its own network stack")
    container = pod.run(ECHO_SERVER)
    table = "cat /proc/net/tcp"
    eventually(lambda: b"0100007F:1F90 " in container.exec(table).stdout, 20, "the server listens")
    sent = random.Random(8080).randbytes(1_000_000)
    with contextlib.ExitStack() as stack:
        sessions = [stack.enter_context(pod.forward(8080)) for _ in range(3)]
        for session in sessions:
            session.send(0, echo_request(len(sent)))
        for at in range(0, len(sent), 50_000):
            for session in sessions:
                session.send(0, sent[at : at + 50_000])
                session.more_bytes(0, at - 200_000)  # so that neither side stops reading
        for session in sessions:
            session.until(0, sent[-100:], 60)
            assert session.seen[0].endswith(b"\r\n\r\n" + sent)
    with pod.forward(8080) as session:  # those that have gone did it no harm
        session.send(0, b"GET /nowhere HTTP/1.0\r\n\r\n")
        session.until(0, b"404 Not Found")


def test_usage_is_told(pod: TestPod) -> None:
    container = pod.run("x=$(busybox head -c 8000000 /dev/zero | busybox tr '\\0' x); while :; do :; done")

    def usage() -> tuple[int, int]:
        stats = container.stats()
        cpu = stats.cpu.usage_core_nano_seconds if stats.cpu is not None else None
        memory = stats.memory.working_set_bytes if stats.memory is not None else None
        return (cpu.value if cpu is not None else 0), (memory.value if memory is not None else 0)

    eventually(lambda: usage()[0] > 10**8, 30, "0.1 s of CPU time are counted")
    eventually(lambda: usage()[1] > 8_000_000, 30, "8 MB of memory are counted")
    before = usage()[0]
    eventually(lambda: usage()[0] > before, 30, "the CPU time grows")
    stats = pod.stats()
    assert stats.linux is not None
    assert [one.attributes.id for one in stats.linux.containers if one.attributes is not None] == [
        container.id
    ]
    assert stats.linux.cpu is not None


def test_a_memory_limit_ends_what_exceeds_it(node: TestNode, handler: HandlerCase) -> None:
    of_container = handler.can(Ability.CONTAINER_LIMITS)
    hog = "busybox head -c 1000000000 /dev/zero | busybox tail -c 900000000 >/dev/null; exit 1"
    pod = node.run_pod(handler.name, memory_bytes=0 if of_container else 150 << 20)
    container = pod.run(f"exec busybox sh -c '{hog}'", memory_bytes=32 << 20)
    ended = container.wait(60 * handler.slow)
    assert ended.reason == "OOMKilled", ended
    assert ended.exit_code != 0
    pod.remove()


def test_limits_change_in_place_or_are_refused(pod: TestPod, handler: HandlerCase) -> None:
    container = pod.run(_SLEEP, memory_bytes=64 << 20)
    if not handler.can(Ability.UPDATE):
        with pytest.raises(NodedError, match="cannot change the resources"):
            container.update(128 << 20)
        return
    container.update(128 << 20)
    resources = container.status().resources
    assert resources is not None
    assert resources.linux is not None
    assert resources.linux.memory_limit_in_bytes == 128 << 20


def test_a_stop_signal_is_heard(pod: TestPod, handler: HandlerCase) -> None:
    script = "trap 'exit 7' USR1; echo ready; while :; do busybox sleep 0.05; done"
    container = pod.run(script, stop_signal=cri.Signal.SIGUSR1)
    eventually(lambda: container.log() == "ready\n", 10 * handler.slow, "the trap is set")
    started = time.monotonic()
    container.stop(30)
    assert container.status().exit_code == 7
    assert time.monotonic() - started < 10 * handler.slow


def test_who_ignores_the_stop_signal_is_killed_after_the_grace(pod: TestPod, handler: HandlerCase) -> None:
    container = pod.run("trap '' TERM; echo ready; while :; do busybox sleep 0.05; done")
    eventually(lambda: container.log() == "ready\n", 10 * handler.slow, "the signal is ignored")
    started = time.monotonic()
    container.stop(1)
    assert container.status().exit_code == _SIGKILLED
    assert 1 <= time.monotonic() - started < 10 * handler.slow


def test_a_created_container_can_be_removed_without_a_start(pod: TestPod) -> None:
    container = pod.create(_SLEEP)
    container.remove()
    pod.run("true", attempt=1).wait()


def test_a_running_container_can_be_removed(pod: TestPod) -> None:
    container = pod.run(_SLEEP)
    container.remove()
    assert _processes_of(container.id) == []
    assert pod.ready


def test_a_container_can_run_again_with_another_attempt(pod: TestPod) -> None:
    pod.run("exit 1").wait()
    assert pod.run("exit 2", attempt=1).wait().exit_code == 2


def test_pods_outlive_the_daemon(node: TestNode, pod: TestPod) -> None:
    container = pod.run("i=0; while :; do echo $i; i=$((i+1)); busybox sleep 0.05; done")
    created = pod.create("exit 9", name="later")
    before = container.status()
    node.kill()
    node.start()
    after = container.status()
    assert (after.state, after.started_at) == (before.state, before.started_at)
    assert pod.ready
    assert container.exec("echo alive").stdout == b"alive\n"
    created.start()
    assert created.wait().exit_code == 9
    count = container.log().count("\n")
    eventually(lambda: container.log().count("\n") > count, 10, "the log goes on")
    container.stop()
    assert container.wait().exit_code == _SIGKILLED


def test_an_exit_while_the_daemon_is_down_is_told_truly(node: TestNode, pod: TestPod) -> None:
    container = pod.run("until test -e /tmp/go; do busybox sleep 0.05; done; busybox sleep 1; exit 42")
    process = os.pidfd_open(container.info()["pid"])
    assert container.exec("echo >/tmp/go").exit_code == 0
    node.kill()
    released = time.time_ns()
    # Of a virtual machine the process outlives the container: then time has to do.
    select.select([process], [], [], 3)
    os.close(process)
    time.sleep(0.3)  # for its monitor to collect it and take the time
    restarted = time.time_ns()
    node.start()
    ended = container.wait()
    assert ended.exit_code == 42
    assert released < ended.finished_at < restarted


def test_a_killed_monitor_ends_its_containers_only(
    node: TestNode, pod: TestPod, handler: HandlerCase
) -> None:
    if not handler.monitor:
        pytest.skip("the handler has no monitor of its containers")
    other_pod = node.run_pod(handler.name)
    victims = [pod.run(_SLEEP, name="victim")]
    others = [pod.run(_SLEEP, name="beside"), other_pod.run(_SLEEP, name="other")]
    if handler.monitor_of_pod:
        victims.append(others.pop(0))
    monitors = _processes_of(pod.id if handler.monitor_of_pod else victims[0].id, handler.monitor)
    assert monitors
    for pid in monitors:
        os.kill(pid, signal.SIGKILL)
    for victim in victims:
        ended = victim.wait(30 * handler.slow)
        assert ended.exit_code != 0
        assert "monitor" in ended.message or "shim" in ended.message
    for other in others:
        assert other.running
        assert other.exec("true").exit_code == 0
    for victim in victims:
        victim.remove()
        assert _processes_of(victim.id) == []
    other_pod.remove()
    pod.stop()
    assert _processes_of(pod.id) == []


def test_a_stopped_monitor_is_healed(node: TestNode, pod: TestPod, handler: HandlerCase) -> None:
    if not handler.monitor:
        pytest.skip("the handler has no monitor of its containers")
    container = pod.run("until test -e /tmp/go; do busybox sleep 0.05; done; echo told; exit 42")
    monitors = _processes_of(pod.id if handler.monitor_of_pod else container.id, handler.monitor)
    assert monitors
    for pid in monitors:
        os.kill(pid, signal.SIGSTOP)
    for pid in monitors:
        status = Path(f"/proc/{pid}/status")
        eventually(lambda status=status: "(stopped)" not in status.read_text(), 30, "the monitor goes on")
    assert container.running
    assert pod.ready
    assert container.exec("echo >/tmp/go").exit_code == 0
    assert container.wait(30 * handler.slow).exit_code == 42
    assert container.log() == "told\n"


def test_pods_are_apart(node: TestNode, pod: TestPod, handler: HandlerCase) -> None:
    other = node.run_pod(handler.name)
    first, second = pod.run(_SLEEP), other.run(_SLEEP)
    assert pod.ip != other.ip
    assert first.exec("hostname").stdout != second.exec("hostname").stdout
    other.remove()
    assert first.exec("true").exit_code == 0


def test_many_commands_run_at_the_same_time(node: TestNode, pod: TestPod) -> None:
    container = pod.run(_SLEEP)
    assert sorted(_at_once(node, container, 8)) == list(range(8))


def _at_once(node: TestNode, container: TestContainer, count: int) -> list[int]:
    import asyncio

    from noded.cli.client import Daemon

    async def one(daemon: Daemon, number: int) -> int:
        words = ["/bin/sh", "-c", f"exit {number}"]
        request = cri.ExecSyncRequest(container_id=container.id, cmd=words)
        return (await daemon.runtime("ExecSync", request, cri.ExecSyncResponse, 60)).exit_code

    async def everyone() -> list[int]:
        async with Daemon(node.address) as daemon:
            return await asyncio.gather(*(one(daemon, number) for number in range(count)))

    return asyncio.run(everyone())


def _echo(session: Session, text: str) -> bool:
    """Type a line and wait for what is said to it."""
    heard = session.seen[Channel.STDOUT].count(b"\n")
    session.type(f"{text}\n")
    session.more_lines(Channel.STDOUT, heard + 2)
    return True


def _outcome(container: TestContainer, *command: str) -> str:
    """The exit code, or the error where the runtime tells the two apart."""
    try:
        return str(container.exec(*command).exit_code)
    except NodedError as error:
        return str(error)


def _processes_of(identity: str, name: str = "") -> list[int]:
    """Pids of processes with an id among their arguments, e.g. monitors."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
            command = (path.parent / "comm").read_text()
        except OSError:
            continue
        if identity.encode() in words and command.startswith(name):
            found.append(int(path.parent.name))
    return found
