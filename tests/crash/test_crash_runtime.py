"""Runtimes that fail, hang or die at each verb, and monitors and init processes that stop or are killed."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.crash import programs
from tests.crash.figures import list_often, publish
from tests.crash.programs import OCI_VERB, Stand
from tests.crash.world import World
from tests.support.processes import monitors

pytestmark = pytest.mark.root

CREATE_SECONDS = 3.0
# The budgets of a node are longer than a test can wait; the code that keeps them is the same.
CONSTANTS = " ".join(
    (
        "noded.runtimes.oci_sandbox:_COMMAND_SECONDS=2",
        "noded.runtimes.teardown:_RUNTIME_SECONDS=2",
        "noded.runtimes.teardown:_MONITOR_SECONDS=1",
        "noded.runtimes.monitor:_RECORD_SECONDS=2",
        "noded.engine.container_stops:_KILL_SECONDS=4",
        "noded.engine.recover:_PROBE_SECONDS=2",
    )
)
IN_TIME_SECONDS = 40.0
WAYS = {
    name.lower(): getattr(programs, name) for name in ("FAIL", "DIE", "HANG", "DO_AND_FAIL", "DO_AND_DIE")
}


@pytest.fixture(scope="module")
def shared(open_world: Callable[..., World], tmp_path_factory: pytest.TempPathFactory) -> World:
    path = tmp_path_factory.mktemp("runtime") / "faulty-runc"
    return open_world(
        settings={"runtimes": {
            "runc": {"type": "runc"},
            "crun": {"type": "crun"},
            "faulty": {"type": "runc", "path": path, "create_timeout_seconds": CREATE_SECONDS},
        }},
        environment={"NODED_TEST_CONSTANTS": CONSTANTS},
    )  # fmt: skip


@pytest.fixture(scope="module")
def runc(shared: World) -> Iterator[Stand]:
    """What the handler `faulty` runs."""
    real = shutil.which("runc")
    assert real is not None
    path = Path(shared.daemon.settings["runtimes"]["faulty"]["path"])
    stand = Stand(path, Path(real), OCI_VERB)
    shared.cri.remove_pod(shared.pod("faulty")[0])  # its own directories come with the first pod
    yield stand
    stand.close()


@pytest.fixture(autouse=True)
def healthy(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "runc" in request.fixturenames:
        request.getfixturevalue("runc").heal()


def refused(call: Callable[..., Any], *arguments: Any) -> str:
    """The message of a call that must be refused in bounded time and is no defect."""
    started = time.monotonic()
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments)
    message = str(caught.value.details())
    assert caught.value.code() is not grpc.StatusCode.INTERNAL, message
    assert time.monotonic() - started < IN_TIME_SECONDS
    return message


def until(condition: Callable[[], bool], what: str, seconds: float = IN_TIME_SECONDS) -> None:
    """Ask the daemon until it says so, as kubelet's relist does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        select.select([], [], [], 0.02)


def works(world: World) -> None:
    """A pod of another handler comes, lives and goes meanwhile."""
    pod, config = world.pod("crun")
    container = world.cri.run_container(pod, world.main(), config)
    assert world.cri.exec(container, "echo", "alive").stdout == b"alive\n"
    world.cri.remove_pod(pod)


@pytest.mark.rotated(2)
@pytest.mark.parametrize("way", WAYS)
def test_a_bad_create_of_the_init_is_undone(shared, runc, way, seed):
    print(f"seed {seed}")
    cri = shared.cri
    before = shared.oracle.take()
    config = shared.daemon.pod_config(cri, pid="POD")
    runc.tell("create", WAYS[way])
    print(refused(cri.run_pod, config, "faulty"))
    assert cri.pods() == []
    shared.assert_unchanged(before)
    runc.heal()
    cri.remove_pod(cri.run_pod(config, "faulty"))
    shared.assert_unchanged(before)


@pytest.mark.rotated(3)
@pytest.mark.parametrize("verb", ["create", "start"])
@pytest.mark.parametrize("way", WAYS)
def test_a_bad_create_or_start_of_a_container_is_told_and_removable(shared, runc, verb, way, seed):
    print(f"seed {seed}")
    cri = shared.cri
    before = shared.oracle.take()
    pod, config = shared.pod("faulty")
    alone = shared.oracle.take()
    runc.tell(verb, WAYS[way])
    if verb == "create":
        print(refused(cri.create, pod, shared.main(), config))
        assert cri.containers() == []
    else:
        container = cri.create(pod, shared.main(), config)
        print(refused(cri.start, container))
        cri.stop(container)
        cri.remove(container)
    shared.assert_unchanged(alone)
    runc.heal()
    cri.run_container(pod, shared.main(), config)
    cri.remove_pod(pod)
    shared.assert_unchanged(before)


@pytest.mark.rotated(2)
@pytest.mark.parametrize("way", WAYS)
def test_a_runtime_that_cannot_delete_keeps_no_pod(shared, runc, way, seed):
    print(f"seed {seed}")
    cri = shared.cri
    before = shared.oracle.take()
    pod, config = shared.pod("faulty")
    container = cri.run_container(pod, shared.main(), config)
    runc.tell("delete", WAYS[way])
    started = time.monotonic()
    cri.stop(container)
    cri.remove(container)
    cri.remove_pod(pod)
    assert time.monotonic() - started < IN_TIME_SECONDS
    shared.assert_unchanged(before)


@pytest.mark.rotated(1)
@pytest.mark.parametrize("way", ["fail", "die", "hang"])
def test_a_bad_exec_is_told_and_the_container_goes_on(shared, runc, way, seed):
    print(f"seed {seed}")
    cri = shared.cri
    before = shared.oracle.take()
    pod, config = shared.pod("faulty")
    container = cri.run_container(pod, shared.main(), config)
    runc.tell("exec", WAYS[way])

    def probe() -> None:
        cri.exec(container, "true", seconds=1)

    print(refused(probe))
    runc.heal()
    assert cri.exec(container, "echo", "alive").stdout == b"alive\n"
    cri.remove_pod(pod)
    shared.assert_unchanged(before)


@pytest.mark.rotated(2)
@pytest.mark.parametrize("way", ["fail", "die", "hang", "nonsense"])
def test_a_runtime_that_cannot_tell_states_holds_no_restart_up(shared, runc, way, seed):
    print(f"seed {seed}")
    cri = shared.cri
    before = shared.oracle.take()
    pod, config = shared.pod("faulty")
    container = cri.create(pod, shared.main(), config)
    runc.tell("state", programs.NONSENSE if way == "nonsense" else WAYS[way])
    shared.daemon.kill()
    started = time.monotonic()
    shared.restarted()
    assert time.monotonic() - started < IN_TIME_SECONDS
    works(shared)
    runc.heal()
    assert cri.status(container).state == cri.pb.CONTAINER_CREATED
    cri.start(container)
    cri.remove_pod(pod)
    shared.assert_unchanged(before)


def test_a_hanging_create_holds_nobody_else_up(shared, runc, seed):
    print(f"seed {seed}")
    cri = shared.cri
    before = shared.oracle.take()
    pod, config = shared.pod("faulty")
    runc.tell("create", programs.HANG)
    request = cri.pb.CreateContainerRequest(pod_sandbox_id=pod, config=shared.main(), sandbox_config=config)
    call = cri.runtime.CreateContainer.future(request, timeout=60)
    runc.wait_arrived()
    works(shared)
    cri.remove_pod(pod)
    assert "told to fail" not in refused(call.result)
    shared.assert_unchanged(before)


@pytest.mark.rotated(1)
@pytest.mark.parametrize("handler", ["runc", "crun"])
def test_pods_with_stopped_monitors_end_in_bounded_time(shared, handler, seed, counts):
    """SIGSTOP of every conmon of five pods; the other pods' calls do not wait for them."""
    print(f"seed {seed}")
    cri = shared.cri
    before = shared.oracle.take()
    pods, pids = [], []
    for _ in range(5):
        pod, config = shared.pod(handler)
        container = cri.run_container(pod, shared.main(), config)
        pods.append(pod)
        pids += [*monitors(container), *monitors(pod)]
    quiet = list_often(shared, counts(100, 2000))
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    started = time.monotonic()
    with ThreadPoolExecutor(5) as clients:
        ends = [clients.submit(cri.remove_pod, pod) for pod in pods]
        works(shared)
        waits = list_often(shared, counts(100, 2000))
        still = sum(not end.done() for end in ends)
        for end in ends:
            end.result()
    seconds = time.monotonic() - started
    publish(
        f"SIGSTOP of all {len(pids)} conmons of 5 pods of {handler}",
        f"all 5 stopped and removed after {seconds:.1f} s; p99 meanwhile {waits}, quiet {quiet}",
        seed,
    )
    print(f"{still} pods were still being removed when the lists were")
    assert seconds < IN_TIME_SECONDS
    waits.assert_kept(quiet)
    shared.assert_unchanged(before)


@pytest.mark.rotated(1)
@pytest.mark.parametrize("handler", ["runc", "crun"])
def test_a_killed_monitor_ends_its_container_and_no_other(shared, handler, seed):
    print(f"seed {seed}")
    cri = shared.cri
    before = shared.oracle.take()
    pod, config = shared.pod(handler)
    first = cri.run_container(pod, shared.main("first"), config)
    second = cri.run_container(pod, shared.main("second"), config)
    for pid in monitors(first):
        os.kill(pid, signal.SIGKILL)
    until(lambda: cri.status(first).state == cri.pb.CONTAINER_EXITED, "the container ends")
    status = cri.status(first)
    assert status.exit_code != 0
    assert "monitor" in status.message
    assert cri.exec(second, "echo", "alive").stdout == b"alive\n"
    cri.remove(first)
    cri.remove_pod(pod)
    shared.assert_unchanged(before)


def test_a_pod_whose_init_is_killed_becomes_not_ready(shared, seed):
    print(f"seed {seed}")
    cri = shared.cri
    before = shared.oracle.take()
    pod, config = shared.pod()
    container = cri.run_container(pod, shared.main(), config)
    other, other_config = shared.pod("crun")
    alive = cri.run_container(other, shared.main(), other_config)
    os.kill(json.loads(cri.pod_status(pod, verbose=True).info["info"])["pid"], signal.SIGKILL)

    def not_ready() -> bool:
        return bool(cri.pod_status(pod).status.state == cri.pb.SANDBOX_NOTREADY)

    until(not_ready, "the pod is not ready")
    until(lambda: cri.status(container).state == cri.pb.CONTAINER_EXITED, "its container has ended")
    assert cri.exec(alive, "echo", "alive").stdout == b"alive\n"
    cri.remove_pod(pod)
    cri.remove_pod(other)
    shared.assert_unchanged(before)


def test_a_runtime_without_features_is_unavailable_and_its_pods_removable(shared, runc, seed):
    print(f"seed {seed}")
    cri = shared.cri
    before = shared.oracle.take()
    pod, config = shared.pod("faulty")
    cri.run_container(pod, shared.main(), config)
    shared.daemon.kill()
    runc.tell("features", programs.FAIL)
    runc.tell("--version", programs.FAIL)
    shared.restarted()
    works(shared)
    refused(cri.run_pod, shared.daemon.pod_config(cri), "faulty")
    cri.remove_pod(pod)  # what it once started can still be taken down
    runc.heal()
    cri.remove_pod(shared.pod("faulty")[0])
    shared.assert_unchanged(before)


def debts(world: World) -> list[Any]:
    return list(world.cri.admin.ListDebts(world.cri.admin_pb.ListDebtsRequest(), timeout=10).debts)


def owed(world: World) -> str:
    """What the status of the node says of it, "" = nothing is owed."""
    status = world.cri.runtime.Status(world.cri.pb.StatusRequest(), timeout=10).status
    (condition,) = [one for one in status.conditions if one.type == "NodedNoDebts"]
    assert condition.status is not bool(condition.message)
    return str(condition.message)


@pytest.fixture
def mount() -> Iterator[Callable[[Path], None]]:
    """Mounts something where it keeps a directory from being removed, as a forgotten bind of another does."""
    made = []

    def mount(target: Path) -> None:
        target.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "forgotten", target], check=True)
        made.append(target)

    yield mount
    for target in made:
        if target.is_mount():
            umount(target)


def umount(target: Path) -> None:
    subprocess.run(["umount", target], check=True)


def test_a_container_that_cannot_be_removed_is_a_debt_and_goes_by_itself(shared, mount, seed):
    """Told, shown, not to be forgiven, retried over a kill, and gone without its client once it can be."""
    print(f"seed {seed}")
    cri = shared.cri
    before = shared.oracle.take()
    pod, config = shared.pod()
    alone = shared.oracle.take()
    container = cri.run_container(pod, shared.main(), config)
    obstacle = shared.daemon.state / "containers" / container / "forgotten"
    mount(obstacle)
    cri.stop(container)
    assert str(obstacle) in refused(cri.remove, container)
    (debt,) = debts(shared)
    assert (debt.id, debt.kind) == (container, "undo bundle")
    assert str(obstacle) in debt.last_error
    assert container[:12] in owed(shared)
    assert [one.state for one in cri.containers()] == [cri.pb.CONTAINER_EXITED]
    forgive = cri.admin_pb.ForgiveDebtRequest(id=container)
    assert "cannot be given up" in refused(partial(cri.admin.ForgiveDebt, timeout=20), forgive)
    until(lambda: debts(shared)[0].tries > debt.tries, "it is tried again without its client")
    tries = debts(shared)[0].tries
    shared.daemon.kill()
    shared.restarted()
    (again,) = debts(shared)
    assert (again.id, again.since_ns) == (debt.id, debt.since_ns)
    until(lambda: debts(shared)[0].tries > tries, "it is tried again after the restart")
    works(shared)
    umount(obstacle)
    until(lambda: not owed(shared), "it is gone by itself")
    assert cri.containers() == []
    cri.remove(container)
    shared.assert_unchanged(alone)
    cri.remove_pod(pod)
    shared.assert_unchanged(before)


@pytest.mark.parametrize("end", ["by itself", "with its pod", "after a kill"])
def test_a_create_that_cannot_be_undone_is_a_debt(shared, runc, end, seed):
    print(f"seed {seed}")
    cri = shared.cri
    before = shared.oracle.take()
    pod, config = shared.pod("faulty")
    runc.tell(
        "create",
        'for word; do [ "${last-}" != --bundle ] || bundle=$word; last=$word; done\n'
        f'mkdir "$bundle/forgotten" && mount -t tmpfs forgotten "$bundle/forgotten"\n{programs.FAIL}',
    )
    assert "told to fail" in refused(cri.create, pod, shared.main(), config)
    runc.heal()
    (debt,) = debts(shared)
    obstacle = shared.daemon.state / "containers" / debt.id / "forgotten"
    try:
        assert debt.kind == "undo bundle"
        assert str(obstacle) in debt.last_error
        assert [(one.id, one.state) for one in cri.containers()] == [(debt.id, cri.pb.CONTAINER_EXITED)]
        assert str(obstacle) in refused(cri.create, pod, shared.main(), config)
        assert str(obstacle) in refused(cri.stop_pod, pod)
        if end == "after a kill":
            shared.daemon.kill()
    finally:
        umount(obstacle)
    if end == "with its pod":
        cri.remove_pod(pod)
        assert not owed(shared)
    elif end == "after a kill":
        shared.restarted()
    until(lambda: not owed(shared), "it is gone by itself")
    assert cri.containers() == []
    cri.remove_pod(pod)
    shared.assert_unchanged(before)
