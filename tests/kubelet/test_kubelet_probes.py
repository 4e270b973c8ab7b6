"""Exec probes, and what follows from their answers."""

from __future__ import annotations

import grpc
import pytest

pytestmark = pytest.mark.root


def test_a_probe_gives_the_exit_code_and_the_output_of_its_command(kubelet, standing):
    mine = standing
    answer = _probe(kubelet, mine, "sh", "-c", "echo fine; echo but >&2; exit 2")
    assert (answer.exit_code, answer.stdout, answer.stderr) == (2, b"fine\n", b"but\n")


def test_a_probe_that_takes_too_long_is_ended_and_told_by_the_runtime(kubelet, standing, cri):
    mine = standing
    with pytest.raises(grpc.RpcError) as caught:
        _probe(kubelet, mine, "sleep", "4321", seconds=1)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert b"4321" not in cri.exec(kubelet.newest(mine).id, "ps").stdout


def test_a_failed_liveness_probe_leads_to_a_stop_and_the_next_attempt(kubelet, pod):
    mine = pod()
    kubelet.sync(mine)
    sick = kubelet.newest(mine)
    assert _probe(kubelet, mine, "false").exit_code == 1
    kubelet.stop(sick.id)
    assert kubelet.container(sick.id).state == kubelet.pb.CONTAINER_EXITED
    kubelet.sync(mine)
    assert kubelet.newest(mine).metadata.attempt == 1
    assert _probe(kubelet, mine, "true").exit_code == 0


def test_a_readiness_probe_follows_what_the_container_does(kubelet, standing):
    mine = standing
    assert _probe(kubelet, mine, "cat", "/tmp/ready").exit_code == 1
    assert _probe(kubelet, mine, "touch", "/tmp/ready").exit_code == 0
    assert _probe(kubelet, mine, "cat", "/tmp/ready").exit_code == 0


def test_a_probe_of_a_dead_container_fails_and_starts_nothing(kubelet, pod, cri):
    mine = pod("true", restart=False)
    kubelet.sync(mine)
    cri.wait_exited(kubelet.newest(mine).id)
    with pytest.raises(grpc.RpcError) as caught:
        _probe(kubelet, mine, "true")
    assert caught.value.code() in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND)


def _probe(kubelet, pod, *command, seconds=10):
    return kubelet.call(
        "ExecSync",
        120 + seconds,
        container_id=kubelet.newest(pod).id,
        cmd=command,
        timeout=seconds,
    )
