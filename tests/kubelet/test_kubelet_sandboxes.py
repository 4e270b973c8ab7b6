"""Sandboxes: when kubelet makes another one, and under which number."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path

import grpc
import pytest

pytestmark = pytest.mark.root


def test_a_pod_in_order_is_left_alone(kubelet, pod):
    mine = pod()
    for _ in range(3):
        kubelet.sync(mine)
    assert kubelet.calls["RunPodSandbox"] == kubelet.calls["CreateContainer"] == 1


def test_a_stopped_sandbox_is_followed_by_the_next_attempt(kubelet, pod):
    mine = pod()
    kubelet.sync(mine)
    first = kubelet.pod_status(mine.uid)[0][0]
    kubelet.call("StopPodSandbox", pod_sandbox_id=first.id)
    kubelet.sync(mine)
    sandboxes, containers = kubelet.pod_status(mine.uid)
    states = [(one.metadata.attempt, one.state) for one in sandboxes]
    assert states == [(1, kubelet.pb.SANDBOX_READY), (0, kubelet.pb.SANDBOX_NOTREADY)]
    assert [one.metadata.attempt for one in containers] == [1, 0]
    assert kubelet.cri.exec(containers[0].id, "true").exit_code == 0


def test_a_create_that_is_repeated_with_its_attempt_gives_the_same_sandbox(kubelet, pod):
    """What kubelet does after its deadline: "name is reserved" would be for ever."""
    mine = pod()
    kubelet.log_directory(mine).mkdir()
    config = kubelet.pod_config(mine, 0)
    made = [kubelet.call("RunPodSandbox", 240, config=config).pod_sandbox_id for _ in range(2)]
    assert made[0] == made[1]


def test_a_sandbox_whose_making_outlasts_the_deadline_is_made_once(kubelet, pod):
    mine = pod()
    kubelet.log_directory(mine).mkdir()
    config = kubelet.pod_config(mine, 0)
    with pytest.raises(grpc.RpcError) as caught:
        kubelet.call("RunPodSandbox", 0.02, config=config)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    kubelet.sync(mine)
    (only,) = kubelet.pod_status(mine.uid)[0]
    assert only.metadata.attempt == 0


def test_the_addresses_are_given_and_can_be_parsed(kubelet, standing):
    mine = standing
    network = kubelet.pod_status(mine.uid)[0][0].network
    for address in (network.ip, *(one.ip for one in network.additional_ips)):
        ipaddress.ip_address(address)


def test_a_pod_of_the_host_network_has_no_address_and_is_not_made_again(kubelet, pod):
    mine = pod(host_network=True)
    kubelet.sync(mine)
    kubelet.sync(mine)
    (sandbox,) = kubelet.pod_status(mine.uid)[0]
    assert sandbox.network.ip == ""
    assert sandbox.linux.namespaces.options.network == kubelet.pb.NODE
    assert kubelet.calls["RunPodSandbox"] == 1


def test_the_namespaces_that_were_asked_for_are_told_back(kubelet, standing):
    mine = standing
    (sandbox,) = kubelet.pod_status(mine.uid)[0]
    asked = kubelet.pod_config(mine, 0).linux.security_context.namespace_options
    assert sandbox.linux.namespaces.options == asked


def test_labels_and_annotations_of_a_sandbox_are_unaltered(kubelet, standing):
    mine = standing
    (sandbox,) = kubelet.pod_status(mine.uid)[0]
    config = kubelet.pod_config(mine, 0)
    assert sandbox.labels == config.labels
    assert sandbox.annotations == config.annotations
    assert sandbox.metadata == config.metadata


def test_a_pod_runs_below_the_cgroup_that_kubelet_names(kubelet, pod, cri):
    mine = pod("sh", "-c", "cat /proc/self/cgroup; sleep 1000")
    kubelet.sync(mine)
    parent = kubelet.pod_config(mine, 0).linux.cgroup_parent.strip("/")
    pid = _pid(cri, kubelet.newest(mine).id)
    paths = [line.split(":", 2)[2] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    assert any(f"/{parent}/" in f"{path}/" for path in paths), paths


def _pid(cri, container):
    return json.loads(cri.verbose_status(container).info["info"])["pid"]
