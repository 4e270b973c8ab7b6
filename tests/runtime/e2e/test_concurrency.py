"""Many clients, retries, cancels and passed deadlines: one result each, nothing left over."""

from __future__ import annotations

import random
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from noded.cli import main as command
from tests.support.cni import WatchedPlugin
from tests.support.documents import documented

pytestmark = pytest.mark.root


def one_pod_life(daemon, cri, image: str, handler: str) -> None:
    """Create, look, exec, remove."""
    config = daemon.pod_config(cri)
    pod = cri.run_pod(config, handler)
    container = cri.run_container(pod, cri.container_config("main", image, ["sleep", "1000"]), config)
    assert cri.exec(container, "echo", "alive").stdout == b"alive\n"
    cri.remove_pod(pod)


def test_pods_made_by_eight_clients_at_once_leave_nothing_twice(daemon, cri, busybox, oracle, counts):
    pods = counts(12, 50)
    one_pod_life(daemon, cri, busybox, "runc")  # what only the first pod makes stays: the bridge
    before = oracle.take()
    for _ in range(2):
        with ThreadPoolExecutor(8) as clients:
            handlers = ["runc", "crun"] * pods
            jobs = [clients.submit(one_pod_life, daemon, cri, busybox, handlers[n]) for n in range(pods)]
            for job in jobs:
                job.result()
        oracle.assert_unchanged(before)


def test_ten_equal_requests_at_once_give_one_sandbox(daemon, cri):
    config = daemon.pod_config(cri)
    with ThreadPoolExecutor(10) as clients:
        jobs = [clients.submit(cri.run_pod, config) for _ in range(10)]
        answers = {job.result() for job in jobs}
    assert len(answers) == 1
    assert [pod.id for pod in cri.pods()] == list(answers)
    assert {cri.run_pod(config)} == answers  # and a later retry gets it too


def test_a_cancelled_request_leaves_nothing(daemon, cri, oracle, rng: random.Random, counts):
    before = oracle.take()
    late = 0
    for _ in range(counts(8, 20)):
        config = daemon.pod_config(cri)
        request = cri.pb.RunPodSandboxRequest(config=config)
        call = cri.runtime.RunPodSandbox.future(request, timeout=60)
        moment = rng.uniform(0, 0.25)
        timer = threading.Timer(moment, call.cancel)
        timer.start()
        try:
            done = call.result().pod_sandbox_id
        except grpc.FutureCancelledError:
            pass
        else:  # it was faster than the cancel
            cri.remove_pod(done)
        timer.join()
        if cri.pods():  # the answer was on its way when the client left: a retry gets this very one
            late += 1
            cri.remove_pod(cri.run_pod(config))
    assert late <= 2
    oracle.assert_unchanged(before, settle_seconds=20)
    assert cri.pods() == []


@pytest.fixture
def bridge_plugin(daemon):
    plugin = WatchedPlugin(daemon.cni_bin_dir, "bridge")
    yield plugin
    plugin.close()


def test_a_deadline_during_a_slow_network_is_survived_by_the_retry(daemon, cri, bridge_plugin):
    bridge_plugin.hold("ADD")
    config = daemon.pod_config(cri)
    with pytest.raises(grpc.RpcError) as caught:
        cri.run_pod(config, timeout=1.5)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert cri.pods() == []  # not shown before it is complete
    with ThreadPoolExecutor(1) as retry:
        answer = retry.submit(cri.run_pod, config)
        bridge_plugin.release("ADD")
        pod = answer.result()
    assert [found.id for found in cri.pods()] == [pod]
    assert len(bridge_plugin.runs("ADD")) == 1


def test_a_passed_deadline_names_the_stage(daemon, cri, bridge_plugin):
    """grpcio's own timer would hide our words, so the deadline goes by the header alone."""
    bridge_plugin.hold("ADD")
    config = daemon.pod_config(cri)
    call = cri.channel.unary_unary(
        "/runtime.v1.RuntimeService/RunPodSandbox",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=cri.pb.RunPodSandboxResponse.FromString,
    )
    with pytest.raises(grpc.RpcError) as caught:
        call(cri.pb.RunPodSandboxRequest(config=config), timeout=2)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    bridge_plugin.release("ADD")
    cri.run_pod(config)


def test_a_failing_delete_is_owed_and_told_and_paid_later(daemon, cri, bridge_plugin, oracle, capsys):
    before = oracle.take()
    pod = cri.run_pod(daemon.pod_config(cri))
    bridge_plugin.fail("DEL")
    with pytest.raises(grpc.RpcError) as caught:
        cri.stop_pod(pod)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "bridge" in caught.value.details()
    status = cri.runtime.Status(cri.pb.StatusRequest(), timeout=10).status
    assert any(condition.type == "NodedNoDebts" and not condition.status for condition in status.conditions)
    assert command.run(["debts", "list", "--json", "--address", daemon.address]) == 0
    assert [debt["id"] for debt in documented("debts list", capsys.readouterr().out)] == [pod]
    daemon.restart(hard=True)
    bridge_plugin.fail("DEL", on=False)
    cri.remove_pod(pod)
    oracle.assert_unchanged(before, settle_seconds=20)


def test_a_debt_that_an_operator_forgives_is_not_paid(daemon, cri, bridge_plugin, capsys):
    pod = cri.run_pod(daemon.pod_config(cri))
    bridge_plugin.fail("DEL")
    with pytest.raises(grpc.RpcError):
        cri.stop_pod(pod)
    runs = len(bridge_plugin.runs("DEL"))
    address = ["--address", daemon.address]
    assert command.run(["debts", "forgive", pod[:12], "--json", *address]) == 0
    assert documented("debts forgive", capsys.readouterr().out) == {"id": pod}
    assert command.run(["debts", "list", "--json", *address]) == 0
    assert documented("debts list", capsys.readouterr().out) == []
    cri.remove_pod(pod)
    assert len(bridge_plugin.runs("DEL")) == runs


def test_two_daemons_cannot_share_a_root(daemon, tmp_path: Path):
    import subprocess
    import sys

    second = tmp_path / "second.toml"
    second.write_text(daemon.config.read_text())
    run = subprocess.run(
        [sys.executable, "-m", "noded", "serve", "--config", str(second)],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert run.returncode == 1
    assert str(daemon.pid) in run.stderr


def test_a_pod_of_another_uid_is_another_pod(daemon, cri):
    first = daemon.pod_config(cri, "same", uid=str(uuid.uuid4()))
    second = daemon.pod_config(cri, "same", uid=str(uuid.uuid4()))
    assert cri.run_pod(first) != cri.run_pod(second)
