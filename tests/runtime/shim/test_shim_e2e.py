"""Pods of a handler of type `shim` through a real daemon: a kubelet sees no difference."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from tests.support import images
from tests.support.cri_client import Cri
from tests.support.daemon import NodedDaemon
from tests.support.oracle import Oracle
from tests.support.registry import Registry
from tests.support.unseen_exit import assert_told_truly

HOST = "registry.example"
HANDLERS = {
    "runtimes": {
        "shim": {"type": "shim", "runtime_type": "io.containerd.runc.v2"},
        "sandboxed": {"type": "shim", "sandbox_container": True},
        "kata": {"type": "kata"},
    }
}


@pytest.fixture(scope="session")
def pushed(registry: Registry) -> Registry:
    registry.push(images.busybox_image(), "shim/busybox", "1")
    return registry


@pytest.fixture
def daemon(tmp_path: Path, pushed: Registry) -> Iterator[NodedDaemon]:
    with NodedDaemon(
        tmp_path, settings=HANDLERS, mirrors={HOST: pushed.host}, insecure=[pushed.host]
    ) as running:
        yield running


@pytest.fixture
def cri(daemon: NodedDaemon) -> Iterator[Cri]:
    with daemon.client() as client:
        client.stop("0" * 64)  # changes are answered once the daemon has looked at the node
        client.pull(f"{HOST}/shim/busybox:1")
        yield client


@pytest.fixture
def busybox() -> str:
    return f"{HOST}/shim/busybox:1"


@pytest.fixture
def oracle(daemon: NodedDaemon, cri: Cri) -> Oracle:
    """After what only the first pods make (the bridge, runtime directories)."""
    for handler in ("shim", "sandboxed"):
        pod_config = daemon.pod_config(cri, pid="POD")
        pod = cri.run_pod(pod_config, handler)
        cri.run_container(pod, cri.container_config("main", f"{HOST}/shim/busybox:1", ["true"]), pod_config)
        cri.remove_pod(pod)
    return Oracle(daemon)


def log_of(config, name="main"):
    lines = (Path(config.log_directory) / f"{name}.log").read_text().splitlines()
    return [line.split(" ", 3)[3] for line in lines]


def shim_pid(daemon: NodedDaemon, pod: str) -> int:
    record = json.loads((daemon.state / "pods" / pod / "infra/shim.json").read_text())
    return int(record["process"][0])


@pytest.mark.parametrize("pid", ["CONTAINER", "POD"])
@pytest.mark.parametrize("handler", ["shim", "sandboxed"])
def test_two_containers_of_a_pod_run_log_and_take_commands(daemon, cri, busybox, oracle, handler, pid):
    daemon.restart(hard=True)  # so that no connection to the registry is left
    cri.stop("0" * 64)
    before = oracle.take()
    config = daemon.pod_config(cri, pid=pid)
    pod = cri.run_pod(config, handler)
    script = "trap 'exit 5' TERM; echo out; echo err >&2; while true; do sleep 0.1; done"
    main = cri.run_container(
        pod, cri.container_config("main", busybox, ["/bin/sh", "-c", script], pid=pid), config
    )
    other = cri.run_container(
        pod, cri.container_config("other", busybox, ["/bin/sh", "-c", "exit 7"], pid=pid), config
    )
    assert cri.wait_exited(other).exit_code == 7
    result = cri.exec(main, "/bin/sh", "-c", "echo hello; echo oops >&2; exit 3")
    assert (result.exit_code, result.stdout, result.stderr) == (3, b"hello\n", b"oops\n")
    with pytest.raises(grpc.RpcError) as late:
        cri.exec(main, "sleep", "1000", seconds=1)
    assert late.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert cri.pod_ip(pod) in cri.exec(main, "ip", "-4", "addr").stdout.decode()
    cri.stop(main, 10)
    status = cri.wait_exited(main)
    assert (status.exit_code, status.reason) == (5, "Error")
    assert sorted(log_of(config)) == ["err", "out"]
    cri.remove_pod(pod)
    oracle.assert_unchanged(before, settle_seconds=20)


def test_a_container_killed_for_memory_says_so(daemon, cri, busybox):
    config = daemon.pod_config(cri)
    pod = cri.run_pod(config, "shim")
    command = ["dd", "if=/dev/zero", "of=/dev/null", "bs=512M", "count=1"]
    eater = cri.run_container(
        pod, cri.container_config("main", busybox, command, memory_bytes=32 << 20), config
    )
    status = cri.wait_exited(eater)
    assert (status.exit_code, status.reason) == (137, "OOMKilled")


@pytest.mark.parametrize("hard", [True, False])
def test_a_live_pod_survives_a_restart_of_the_daemon(daemon, cri, busybox, oracle, hard):
    daemon.restart(hard=True)
    cri.stop("0" * 64)
    before = oracle.take()
    config = daemon.pod_config(cri)
    pod = cri.run_pod(config, "sandboxed")
    script = "trap 'echo bye; exit 9' TERM; i=0; while true; do echo $i; i=$((i+1)); sleep 0.05; done"
    main = cri.run_container(pod, cri.container_config("main", busybox, ["/bin/sh", "-c", script]), config)
    created = cri.create(pod, cri.container_config("later", busybox, ["/bin/sh", "-c", "exit 4"]), config)
    seen = cri.status(main)
    daemon.restart(hard=hard)
    cri.stop("0" * 64)
    now = cri.status(main)
    assert (now.state, now.created_at, now.started_at) == (seen.state, seen.created_at, seen.started_at)
    assert cri.exec(main, "echo", "alive").stdout == b"alive\n"
    cri.start(created)
    assert cri.wait_exited(created).exit_code == 4
    cri.stop(main, 10)
    assert cri.wait_exited(main).exit_code == 9
    # Not a line is missing, whether or not a daemon ran when it was written.
    lines = log_of(config)
    assert lines == [*map(str, range(len(lines) - 1)), "bye"]
    cri.remove_pod(pod)
    oracle.assert_unchanged(before, settle_seconds=20)


def test_an_exit_while_the_daemon_was_down_is_told_truly(daemon, cri, busybox, tmp_path):
    assert_told_truly(daemon, cri, busybox, "shim", tmp_path)


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_pod_whose_shim_is_lost_ends_and_others_do_not_notice(daemon, cri, busybox, oracle, signal_number):
    daemon.restart(hard=True)
    cri.stop("0" * 64)
    before = oracle.take()
    configs = [daemon.pod_config(cri) for _ in range(2)]
    pods = [cri.run_pod(config, "shim") for config in configs]
    mains = [
        cri.run_container(pod, cri.container_config("main", busybox, ["sleep", "1000"]), config)
        for pod, config in zip(pods, configs, strict=True)
    ]
    os.kill(shim_pid(daemon, pods[0]), signal_number)
    if signal_number == signal.SIGSTOP:
        cri.stop(mains[0], 0)
    status = cri.wait_exited(mains[0])
    assert status.exit_code in (255, 137)
    assert "shim" in status.message
    assert cri.exec(mains[1], "echo", "fine").stdout == b"fine\n"
    for pod in pods:
        cri.remove_pod(pod)
    oracle.assert_unchanged(before, settle_seconds=20)


def test_a_killed_shim_with_a_sandbox_container_makes_the_pod_not_ready(daemon, cri, busybox):
    config = daemon.pod_config(cri)
    pod = cri.run_pod(config, "sandboxed")
    main = cri.run_container(pod, cri.container_config("main", busybox, ["sleep", "1000"]), config)
    os.kill(shim_pid(daemon, pod), signal.SIGKILL)
    assert "shim" in cri.wait_exited(main).message
    deadline = time.monotonic() + 20
    while cri.pod_status(pod).status.state == cri.pb.SANDBOX_READY:
        assert time.monotonic() < deadline, "the pod is still ready"
        time.sleep(0.05)  # between the death of its init and the state lies the pod's take-down
    cri.remove_pod(pod)


def test_a_kata_handler_without_kata_says_what_is_missing(daemon, cri):
    with pytest.raises(grpc.RpcError) as refused:
        cri.run_pod(daemon.pod_config(cri), "kata")
    assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert "containerd-shim-kata-v2" in refused.value.details()
    assert "kata-containers" in refused.value.details()
