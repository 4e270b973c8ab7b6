"""Stats as kubelet's provider takes them."""

from __future__ import annotations

import pytest

from tests.kubelet.kubelet import UID_LABEL

pytestmark = pytest.mark.root


def test_every_running_container_has_its_numbers_and_its_names(kubelet, pod):
    pods = [pod(), pod()]
    for one in pods:
        kubelet.sync(one)
    stats = {one.attributes.labels[UID_LABEL]: one for one in kubelet.call("ListContainerStats").stats}
    for one in pods:
        found, status = stats[one.uid], kubelet.newest(one)
        assert found.attributes.id == status.id
        assert found.attributes.metadata == status.metadata
        assert found.cpu.usage_core_nano_seconds.value > 0
        assert found.memory.working_set_bytes.value > 0
        assert found.cpu.timestamp > 0
        assert found.HasField("writable_layer")


def test_the_rate_of_the_processor_is_filled_from_two_samples(kubelet, pod, cri):
    mine = pod("sh", "-c", "while :; do :; done")
    kubelet.sync(mine)
    container = kubelet.newest(mine).id
    kubelet.call("ContainerStats", container_id=container)
    cri.exec(container, "usleep", "200000")  # a rate over less would be noise
    stats = kubelet.call("ContainerStats", container_id=container).stats
    assert stats.cpu.HasField("usage_nano_cores")


def test_a_pod_has_network_numbers_of_its_own(kubelet, standing):
    mine = standing
    sandbox = kubelet.pod_status(mine.uid)[0][0].id
    (stats,) = (one for one in kubelet.call("ListPodSandboxStats").stats if one.attributes.id == sandbox)
    assert stats.linux.network.default_interface.name == "eth0"
    assert [one.attributes.id for one in stats.linux.containers] == [kubelet.newest(mine).id]
    assert stats.linux.process.process_count.value >= 1


def test_a_dead_container_does_not_break_the_list(kubelet, pod, cri):
    dead, alive = pod("true", restart=False), pod()
    for one in (dead, alive):
        kubelet.sync(one)
    cri.wait_exited(kubelet.newest(dead).id)
    ids = {one.attributes.id for one in kubelet.call("ListContainerStats").stats}
    assert kubelet.newest(alive).id in ids


def test_every_metric_of_a_pod_has_a_descriptor(kubelet, standing):
    mine = standing
    known = {one.name: len(one.label_keys) for one in kubelet.call("ListMetricDescriptors").descriptors}
    sandbox = kubelet.pod_status(mine.uid)[0][0].id
    (metrics,) = (
        one for one in kubelet.call("ListPodSandboxMetrics").pod_metrics if one.pod_sandbox_id == sandbox
    )
    found = [*metrics.metrics, *(one for container in metrics.container_metrics for one in container.metrics)]
    assert found
    for one in found:
        assert known[one.name] == len(one.label_values)
