"""Start-up: what a kubelet asks before its first pod, and what makes it refuse the runtime."""

from __future__ import annotations

import re

import pytest

from tests.kubelet.kubelet import Kubelet

pytestmark = pytest.mark.root


def test_the_untyped_version_names_the_interface_that_kubelet_validates(kubelet):
    assert kubelet.call("Version").runtime_api_version == "v1"


def test_the_typed_version_has_every_field_and_the_version_that_kubelet_knows(kubelet):
    answer = kubelet.call("Version", version="0.1.0")
    assert answer.version == "0.1.0"
    assert answer.runtime_name not in ("", "docker")  # scheme of container ids on the node's status
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", answer.runtime_version)


def test_the_cgroup_driver_is_a_known_one_and_never_changes(kubelet):
    pb = kubelet.pb
    answers = [kubelet.call("RuntimeConfig") for _ in range(3)]
    assert all(answer.HasField("linux") for answer in answers)
    assert {answer.linux.cgroup_driver for answer in answers} == {pb.CGROUPFS}


def test_runtime_and_network_are_ready(kubelet):
    conditions = {one.type: one for one in kubelet.status().status.conditions}
    assert conditions["RuntimeReady"].status, conditions
    assert conditions["NetworkReady"].status, conditions


def test_the_default_handler_is_also_listed_without_a_name(kubelet):
    handlers = {one.name: one.features for one in kubelet.status().runtime_handlers}
    assert {"", "runc"} <= set(handlers)
    assert handlers[""] == handlers["runc"]


def test_strict_supplemental_groups_are_announced(kubelet):
    assert kubelet.status().features.supplemental_groups_policy


def test_the_pod_range_of_the_node_can_be_told_again_and_again(kubelet):
    for cidr in ("10.88.0.0/24", "10.88.0.0/24", "10.88.0.0/24,fd00::/64"):
        kubelet.call("UpdateRuntimeConfig", runtime_config={"network_config": {"pod_cidr": cidr}})
    assert {one.type for one in kubelet.status().status.conditions if one.status} >= {"NetworkReady"}


def test_two_connections_to_one_socket_serve_runtime_and_images(kubelet, daemon):
    with daemon.client() as other:
        assert len(other.images()) == len(kubelet.call("ListImages").images)


def test_a_kubelet_that_starts_anew_keeps_the_pods_that_run(kubelet, pod, daemon):
    mine = pod()
    kubelet.sync(mine)
    before = kubelet.newest(mine)
    again = Kubelet(kubelet.cri, kubelet.directory, daemon.cgroup_parent)
    again.start()
    assert {change.kind for change in again.relist()} == {"STARTED"}
    again.sync(mine)
    after = again.newest(mine)
    assert (after.id, after.created_at, after.annotations) == (
        before.id,
        before.created_at,
        before.annotations,
    )
    assert again.calls["CreateContainer"] == again.calls["RunPodSandbox"] == 0
