"""The runtime goes away and comes back while kubelet and the pods go on."""

from __future__ import annotations

import json
import os
import select
import signal

import grpc
import pytest

pytestmark = pytest.mark.root


@pytest.mark.parametrize("hard", [False, True], ids=["by SIGTERM", "by SIGKILL"])
def test_a_restarted_runtime_shows_the_same_pods_and_kubelet_starts_nothing(kubelet, pod, daemon, hard):
    pods = [pod(memory_bytes=64 << 20), pod(host_network=True), pod("sh", "-c", "exit 5", restart=False)]
    for one in pods:
        kubelet.sync(one)
    kubelet.cri.wait_exited(kubelet.newest(pods[2]).id)
    kubelet.relist()
    before = [kubelet.pod_status(one.uid) for one in pods]
    images = {one.id for one in kubelet.call("ListImages").images}
    made = kubelet.calls["RunPodSandbox"], kubelet.calls["CreateContainer"]
    daemon.restart(hard=hard)
    assert kubelet.relist() == []
    assert [kubelet.pod_status(one.uid) for one in pods] == before
    assert {one.id for one in kubelet.call("ListImages").images} == images
    for one in pods:
        kubelet.sync(one)
    assert (kubelet.calls["RunPodSandbox"], kubelet.calls["CreateContainer"]) == made
    assert kubelet.cri.exec(kubelet.newest(pods[0]).id, "true").exit_code == 0


def test_calls_during_the_outage_are_unavailable(kubelet, daemon):
    """The one code that kubelet takes for an outage and not for an answer."""
    daemon.kill()
    try:
        with pytest.raises(grpc.RpcError) as caught:
            kubelet.relist()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    finally:
        daemon.start()
    # kubelet comes again every second; the test waits for the connection instead.
    grpc.channel_ready_future(kubelet.cri.channel).result(timeout=20)
    kubelet.relist()


def test_an_exit_during_the_outage_is_told_with_its_code_and_the_next_attempt_follows(
    kubelet, pod, daemon, cri
):
    mine = pod("sh", "-c", "trap 'exit 6' USR1; sleep 1000 & wait")
    kubelet.sync(mine)
    kubelet.relist()
    status = kubelet.newest(mine)
    pid = json.loads(cri.verbose_status(status.id).info["info"])["pid"]
    descriptor = os.pidfd_open(pid)
    daemon.kill()
    signal.pidfd_send_signal(descriptor, signal.SIGUSR1)
    assert select.select([descriptor], [], [], 10)[0]
    os.close(descriptor)
    daemon.start()
    died = cri.wait_exited(status.id)
    assert died.exit_code == 6
    assert died.started_at < died.finished_at
    assert [change.kind for change in kubelet.relist()] == ["DIED"]
    kubelet.sync(mine)
    assert kubelet.newest(mine).metadata.attempt == 1
