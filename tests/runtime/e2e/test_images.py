"""Pulling as operators know it, and what a refusal says."""

from __future__ import annotations

import subprocess

import grpc
import pytest

from tests.support import images

HOST = "registry.example"
pytestmark = pytest.mark.root


def refused(call, *arguments, **options) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, **options)
    return caught.value


def test_an_image_is_pulled_by_tag_by_digest_and_through_a_mirror(cri, pushed):
    image = images.busybox_image()
    by_tag = cri.pull(f"{pushed.host}/e2e/busybox:1")
    by_digest = cri.pull(f"{pushed.host}/e2e/busybox@{image.digest}")
    by_mirror = cri.pull(f"{HOST}/e2e/busybox:1")
    assert by_tag == by_digest == by_mirror == image.id
    (listed,) = cri.images()
    assert set(listed.repo_tags) == {f"{pushed.host}/e2e/busybox:1", f"{HOST}/e2e/busybox:1"}
    assert listed.size > 0


def test_removing_an_image_frees_everything(cri, pushed, oracle):
    before = oracle.take()
    image = cri.pull(f"{HOST}/e2e/http:1")
    cri.image.RemoveImage(cri.pb.RemoveImageRequest(image=cri.pb.ImageSpec(image=image)), timeout=20)
    assert cri.images() == []
    oracle.assert_unchanged(before)


def test_an_absent_image_is_an_empty_answer(cri):
    request = cri.pb.ImageStatusRequest(image=cri.pb.ImageSpec(image="registry.example/none:1"))
    assert not cri.image.ImageStatus(request, timeout=10).HasField("image")


def test_a_registry_that_is_down_has_the_prefix_that_kubelet_knows(daemon, cri, pushed):
    error = refused(cri.pull, "127.0.0.1:1/e2e/busybox:1")
    assert error.code() is grpc.StatusCode.UNKNOWN
    assert error.details().startswith("RegistryUnavailable: ")


def test_a_missing_image_has_no_such_prefix(cri, pushed):
    error = refused(cri.pull, f"{pushed.host}/e2e/nothing:1")
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert not error.details().startswith("RegistryUnavailable")


def test_a_damaged_layer_is_refused_and_nothing_of_it_stays(cri, pushed, oracle):
    broken = images.busybox_image(labels={"state": "broken"})
    pushed.push(broken, "e2e/broken", "1")
    layer = broken.layer_digests[0]
    path = pushed.blob_path(layer)
    good = path.read_bytes()
    before = oracle.take()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    try:
        error = refused(cri.pull, f"{HOST}/e2e/broken:1")
    finally:
        path.write_bytes(good)
    assert error.code() is grpc.StatusCode.DATA_LOSS
    assert layer in error.details()
    assert cri.images() == []
    oracle.assert_unchanged(before)


def test_a_passed_deadline_is_told_as_such(cri, pushed):
    error = refused(cri.pull, f"{HOST}/e2e/busybox:1", timeout=0.001)
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("reference", ["lib/UPPER:1", "bad name", "a//b", ":tag", "x@sha256:12"])
def test_a_malformed_reference_is_an_invalid_argument(cri, reference):
    error = refused(cri.pull, reference)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_an_image_saved_by_noded_is_read_by_skopeo_and_loaded_again(daemon, cri, busybox, tmp_path):
    archive = tmp_path / "busybox.tar"
    request = cri.admin_pb.SaveImageRequest(references=[busybox], path=str(archive))
    cri.admin.SaveImage(request, timeout=30)
    subprocess.run(["skopeo", "inspect", f"oci-archive:{archive}"], check=True, capture_output=True)
    image = images.busybox_image()
    cri.image.RemoveImage(cri.pb.RemoveImageRequest(image=cri.pb.ImageSpec(image=busybox)), timeout=20)
    assert cri.load(archive) == [image.id]
