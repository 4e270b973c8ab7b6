"""Codes, prefixes and repeated calls: what kubelet decides by."""

from __future__ import annotations

import shutil

import grpc
import pytest

from tests.kubelet.conftest import HOST

pytestmark = pytest.mark.root
NOBODY = "0" * 64


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("ContainerStatus", {"container_id": NOBODY}),
        ("PodSandboxStatus", {"pod_sandbox_id": NOBODY}),
        ("StartContainer", {"container_id": NOBODY}),
        ("ExecSync", {"container_id": NOBODY, "cmd": ["true"]}),
        ("ReopenContainerLog", {"container_id": NOBODY}),
        ("UpdateContainerResources", {"container_id": NOBODY, "linux": {"cpu_shares": 2}}),
        ("ContainerStats", {"container_id": NOBODY}),
        ("PodSandboxStats", {"pod_sandbox_id": NOBODY}),
    ],
)
def test_what_does_not_exist_is_not_found(kubelet, name, fields):
    assert _code(kubelet, name, fields) is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("StopContainer", {"container_id": NOBODY}),
        ("RemoveContainer", {"container_id": NOBODY}),
        ("StopPodSandbox", {"pod_sandbox_id": NOBODY}),
        ("RemovePodSandbox", {"pod_sandbox_id": NOBODY}),
        ("RemoveImage", {"image": {"image": f"{HOST}/nobody/nothing:1"}}),
    ],
)
def test_what_is_gone_may_be_stopped_and_removed(kubelet, name, fields):
    kubelet.call(name, **fields)


def test_stops_and_removals_may_be_repeated(kubelet, pod):
    mine = pod()
    kubelet.sync(mine)
    container, sandbox = kubelet.newest(mine).id, kubelet.pod_status(mine.uid)[0][0].id
    for name, fields in (
        ("StopContainer", {"container_id": container}),
        ("RemoveContainer", {"container_id": container}),
        ("StopPodSandbox", {"pod_sandbox_id": sandbox}),
        ("RemovePodSandbox", {"pod_sandbox_id": sandbox}),
    ):
        for _ in range(3):
            kubelet.call(name, **fields)


def test_a_second_start_of_a_container_is_refused(kubelet, standing):
    mine = standing
    code = _code(kubelet, "StartContainer", {"container_id": kubelet.newest(mine).id})
    assert code is grpc.StatusCode.FAILED_PRECONDITION


def test_the_removal_of_a_running_container_kills_it_first(kubelet, pod):
    mine = pod()
    kubelet.sync(mine)
    container = kubelet.newest(mine).id
    kubelet.call("RemoveContainer", container_id=container)
    assert kubelet.container(container) is None


def test_the_removal_of_a_running_sandbox_takes_its_containers_along(kubelet, pod):
    mine = pod()
    kubelet.sync(mine)
    kubelet.call("RemovePodSandbox", pod_sandbox_id=kubelet.pod_status(mine.uid)[0][0].id)
    assert kubelet.pod_status(mine.uid) == ([], [])


def test_an_unknown_method_is_unimplemented(kubelet):
    """A newer kubelet tries what it knows and falls back on this code alone."""
    call = kubelet.cri.channel.unary_unary("/runtime.v1.RuntimeService/FromTheFuture")
    with pytest.raises(grpc.RpcError) as caught:
        call(b"", timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_registry_that_cannot_be_reached_is_told_by_the_prefix_that_kubelet_knows(kubelet):
    with pytest.raises(grpc.RpcError) as caught:
        kubelet.call("PullImage", None, image={"image": "127.0.0.1:1/nothing/here:1"})
    assert caught.value.code() is grpc.StatusCode.UNKNOWN  # any other would stand before the message
    assert caught.value.details().startswith("RegistryUnavailable"), caught.value.details()


def test_an_image_that_the_policy_refuses_is_told_by_the_prefix_that_kubelet_knows(kubelet):
    with pytest.raises(grpc.RpcError) as caught:
        kubelet.call("PullImage", None, image={"image": f"{HOST}/kubelet/forbidden:1"})
    assert caught.value.code() is grpc.StatusCode.UNKNOWN
    assert caught.value.details().startswith("SignatureValidationFailed"), caught.value.details()


@pytest.mark.skipif(shutil.which("runsc") is None, reason="runsc, which cannot do it, is not installed")
def test_a_handler_without_recursive_read_only_mounts_says_so_by_the_prefix_that_kubelet_knows(
    kubelet, pod, cri, tmp_path
):
    mine = pod(handler="runsc")
    kubelet.log_directory(mine).mkdir()
    sandbox_config = kubelet.pod_config(mine, 0)
    sandbox = kubelet.call("RunPodSandbox", config=sandbox_config, runtime_handler="runsc").pod_sandbox_id
    image = kubelet.ensure_image(mine.containers[0].image)
    config = kubelet.container_config(mine, mine.containers[0], image, 0)
    config.mounts.add(
        host_path=str(tmp_path), container_path="/data", readonly=True, recursive_read_only=True
    )
    with pytest.raises(grpc.RpcError) as caught:
        cri.create(sandbox, config, sandbox_config)
    assert caught.value.details().startswith("RROUnsupported"), caught.value.details()


def test_an_image_volume_that_cannot_be_mounted_is_told_by_the_prefix_that_kubelet_knows(
    kubelet, standing, cri
):
    mine = standing
    status, sandbox = kubelet.newest(mine), kubelet.pod_status(mine.uid)[0][0].id
    config = kubelet.container_config(mine, mine.containers[0], status.image_id, 1)
    mount = config.mounts.add(container_path="/data", image_sub_path="no/such/directory", readonly=True)
    mount.image.image = status.image_id
    with pytest.raises(grpc.RpcError) as caught:
        cri.create(sandbox, config, kubelet.pod_config(mine, 0))
    assert caught.value.details().startswith("ImageVolumeMountFailed"), caught.value.details()


def test_a_resize_that_the_kernel_refuses_is_refused_and_changes_nothing(kubelet, pod):
    mine = pod(memory_bytes=64 << 20)
    kubelet.sync(mine)
    container = kubelet.newest(mine)
    with pytest.raises(grpc.RpcError):
        kubelet.call("UpdateContainerResources", container_id=container.id, linux={"cpuset_cpus": "4000"})
    assert kubelet.newest(mine).resources == container.resources


def _code(kubelet, name, fields):
    with pytest.raises(grpc.RpcError) as caught:
        kubelet.call(name, **fields)
    return caught.value.code()
