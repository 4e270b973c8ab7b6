"""CNI plugins that fail, hang, die half-way or talk nonsense: told clearly, undone, paid in the end."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from tests.crash import programs
from tests.crash.faults import Fault, FaultyDaemon
from tests.crash.programs import CNI_VERB, Stand
from tests.crash.world import World
from tests.support.cni import plugin_path

pytestmark = pytest.mark.root

ADD_SECONDS, DEL_SECONDS = 2.0, 1.5
IN_TIME_SECONDS = 30.0
WAYS = {
    name.lower(): getattr(programs, name)
    for name in (
        "FAIL", "DIE", "HANG", "NONSENSE", "SILENT", "FLOOD", "DO_AND_FAIL", "DO_AND_DIE", "DO_AND_HANG",
    )
}  # fmt: skip
CODES = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.DEADLINE_EXCEEDED}


@pytest.fixture(scope="module")
def shared(open_world) -> World:
    network = {"add_timeout_seconds": ADD_SECONDS, "del_timeout_seconds": DEL_SECONDS}
    return open_world(settings={"network": network})


@pytest.fixture(scope="module")
def bridge(shared: World) -> Iterator[Stand]:
    stand = Stand(shared.daemon.cni_bin_dir / "bridge", plugin_path("bridge"), CNI_VERB)
    yield stand
    stand.close()


@pytest.fixture(autouse=True)
def healthy(bridge: Stand) -> Iterator[None]:
    yield
    bridge.heal()


def refused(call: Any, *arguments: Any) -> str:
    """The message of a call that must be refused, in bounded time, naming the plugin."""
    started = time.monotonic()
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments)
    message = str(caught.value.details())
    assert caught.value.code() in CODES, message
    assert "bridge" in message
    assert time.monotonic() - started < IN_TIME_SECONDS
    return message


@pytest.mark.rotated(3)
@pytest.mark.parametrize("way", WAYS)
def test_a_bad_add_is_undone_and_the_retry_works(shared, bridge, way, seed):
    print(f"seed {seed}")
    cri, config = shared.cri, shared.daemon.pod_config(shared.cri)
    before = shared.oracle.take()
    bridge.tell("ADD", WAYS[way])
    print(refused(cri.run_pod, config))
    assert cri.pods() == []
    shared.assert_unchanged(before)
    bridge.heal()
    cri.remove_pod(cri.run_pod(config))
    shared.assert_unchanged(before)


def test_an_add_that_fails_three_times_leaves_no_address(shared, bridge, seed):
    print(f"seed {seed}")
    cri, config = shared.cri, shared.daemon.pod_config(shared.cri)
    before = shared.oracle.take()
    bridge.tell("ADD", programs.DO_AND_FAIL)
    for _ in range(3):
        refused(cri.run_pod, config)
    bridge.heal()
    pod = cri.run_pod(config)
    addresses = [path for path in shared.daemon.ipam.rglob("10.*") if path.is_file()]
    assert [path.name for path in addresses] == [cri.pod_ip(pod)]
    cri.remove_pod(pod)
    shared.assert_unchanged(before)


@pytest.mark.rotated(2)
@pytest.mark.parametrize("way", ["fail", "die", "hang", "do_and_die", "do_and_hang"])
def test_a_bad_del_is_owed_and_paid_while_others_go_on(shared, bridge, way, seed):
    print(f"seed {seed}")
    cri = shared.cri
    before = shared.oracle.take()
    pod = cri.run_pod(shared.daemon.pod_config(cri))
    other = cri.run_pod(shared.daemon.pod_config(cri, network="NODE"))
    bridge.tell("DEL", WAYS[way])
    stop = cri.pb.StopPodSandboxRequest(pod_sandbox_id=pod)
    call = cri.runtime.StopPodSandbox.future(stop, timeout=60)
    bridge.wait_arrived()
    cri.remove_pod(other)
    refused(call.result)
    assert [(one.id, one.state) for one in cri.pods()] == [(pod, cri.pb.SANDBOX_NOTREADY)]
    bridge.heal()
    cri.remove_pod(pod)
    shared.assert_unchanged(before)


@pytest.mark.parametrize("way", ["hang", "fail"])
def test_a_pod_that_no_client_was_told_of_is_seen_after_a_kill_only_if_it_stays(shared, bridge, way, seed):
    """kubelet would stop a pod that is seen going, and make its next attempt, instead of asking again."""
    print(f"seed {seed}")
    cri = shared.cri
    before = shared.oracle.take()
    config = shared.daemon.pod_config(cri)
    request = cri.pb.RunPodSandboxRequest(config=config)
    with shared.daemon.armed(Fault("sandbox", "runtime", "up", "before", "kill")):
        call = cri.runtime.RunPodSandbox.future(request, timeout=60)
        shared.daemon.wait_dead()
    with pytest.raises(grpc.RpcError):
        call.result()
    bridge.tell("DEL", WAYS[way])
    shared.restarted()
    bridge.wait_arrived()
    if way == "hang":  # the rollback is at the network, and waits
        assert cri.pods() == []
        bridge.heal()
        again = cri.run_pod(config)
        assert [(one.id, one.state) for one in cri.pods()] == [(again, cri.pb.SANDBOX_READY)]
    else:
        until(lambda: [one.state for one in cri.pods()] == [cri.pb.SANDBOX_NOTREADY], "it is seen to stay")
        (debt,) = cri.admin.ListDebts(cri.admin_pb.ListDebtsRequest(), timeout=10).debts
        assert [debt.id] == [one.id for one in cri.pods()]
        assert "told to fail" in debt.last_error
        until(lambda: next_try(cri) > time.time_ns(), "it says when it is tried again")
        bridge.heal()
        until(lambda: cri.pods() == [], "it is gone by itself")
        again = cri.run_pod(config)
    cri.remove_pod(again)
    shared.assert_unchanged(before)


def next_try(cri) -> int:
    (debt,) = cri.admin.ListDebts(cri.admin_pb.ListDebtsRequest(), timeout=10).debts
    return int(debt.next_try_ns)


def until(condition: Callable[[], bool], what: str) -> None:
    """Ask the daemon until it says so, as kubelet's relist does."""
    deadline = time.monotonic() + IN_TIME_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {IN_TIME_SECONDS} s: {what}"
        select.select([], [], [], 0.02)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_debt_past_its_grace_hides_the_pod_and_is_paid_over_kills(image_layout, tmp_path, moment, seed):
    """SIGKILL while it is owed, and once more at the very end of paying it."""
    print(f"seed {seed}")
    daemon = FaultyDaemon(tmp_path, settings={"network": {"del_grace_seconds": 0.0}})
    with World(daemon, image_layout) as world:
        cri = world.cri
        before = world.oracle.take()
        bridge = Stand(daemon.cni_bin_dir / "bridge", plugin_path("bridge"), CNI_VERB)
        config = daemon.pod_config(cri)
        pod = cri.run_pod(config)
        bridge.tell("DEL", programs.FAIL)
        cri.remove_pod(pod)
        assert cri.pods() == []
        second = cri.run_pod(config)  # its name and uid are free again
        assert second != pod
        debts = cri.admin.ListDebts(cri.admin_pb.ListDebtsRequest(), timeout=10).debts
        assert [debt.id for debt in debts] == [pod]
        daemon.kill()
        bridge.heal()
        with daemon.armed(Fault("sandbox", "record", "down", moment, "kill")):
            daemon.start()
            daemon.wait_dead()
        world.restarted()
        assert [one.id for one in cri.pods()] == [second]
        cri.remove_pod(second)
        world.assert_unchanged(before)
        bridge.close()


def test_a_debt_is_forgiven_by_a_prefix_that_fits_one_only(image_layout, tmp_path, seed):
    """Until somebody says so, nothing of it is dropped."""
    print(f"seed {seed}")
    daemon = FaultyDaemon(tmp_path, settings={"network": {"del_grace_seconds": 0.0}})
    with World(daemon, image_layout) as world:
        cri = world.cri
        bridge = Stand(daemon.cni_bin_dir / "bridge", plugin_path("bridge"), CNI_VERB)
        bridge.tell("DEL", programs.FAIL)
        debts: dict[str, str] = {}
        while True:  # of 17 ids two begin alike
            pod = cri.run_pod(daemon.pod_config(cri))
            cri.remove_pod(pod)
            twin = debts.get(pod[0])
            debts[pod[0]] = pod
            if twin is not None:
                break
        for prefix, code in (
            (pod[0], grpc.StatusCode.INVALID_ARGUMENT),
            ("", grpc.StatusCode.INVALID_ARGUMENT),
            ("no such debt", grpc.StatusCode.NOT_FOUND),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                cri.admin.ForgiveDebt(cri.admin_pb.ForgiveDebtRequest(id=prefix), timeout=20)
            assert caught.value.code() is code, caught.value.details()
        owed = cri.admin.ListDebts(cri.admin_pb.ListDebtsRequest(), timeout=10).debts
        assert {debt.id for debt in owed} == {*debts.values(), twin}
        cri.admin.ForgiveDebt(cri.admin_pb.ForgiveDebtRequest(id=pod), timeout=20)
        owed = cri.admin.ListDebts(cri.admin_pb.ListDebtsRequest(), timeout=10).debts
        assert {debt.id for debt in owed} == {*debts.values(), twin} - {pod}
        assert not (daemon.state / "pods" / pod).exists()
        bridge.heal()
        bridge.close()
