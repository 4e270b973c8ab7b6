"""Pulling as operators know it, and what a refusal says."""

from __future__ import annotations

import base64
import json
import subprocess

import grpc
import pytest

from tests.support import images
from tests.support.daemon import NodedDaemon
from tests.support.registry import PASSWORD, USER, Registry

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


def test_an_image_goes_from_noded_through_skopeo_and_back_and_runs(daemon, cri, busybox, pushed, tmp_path):
    """As archives and through a registry, in both kinds of manifest and with other compression."""
    saved = {form: tmp_path / f"{form}.tar" for form in ("oci", "docker")}
    for form, archive in saved.items():
        request = cri.admin_pb.SaveImageRequest(
            references=[busybox], path=str(archive), format=getattr(cri.admin_pb, form.upper())
        )
        cri.admin.SaveImage(request, timeout=30)
    at = f"docker://{pushed.host}/e2e/copied"
    copies = {
        f"oci-archive:{tmp_path}/copied-oci.tar:copied/archive:oci": (),
        f"docker-archive:{tmp_path}/copied-docker.tar:copied/archive:docker": (),
        f"{at}:oci-zstd": ("--format=oci", "--dest-compress-format=zstd"),
        f"{at}:docker": ("--format=v2s2",),
        f"{at}:plain": ("--format=oci", "--dest-decompress"),
    }
    for number, (target, options) in enumerate(copies.items()):
        form = ("oci", "docker")[number % 2]
        source = f"{form}-archive:{saved[form]}"
        command = ["skopeo", "--insecure-policy", "copy", "--dest-tls-verify=false", *options, source, target]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
    remove(cri, busybox)
    for target in copies:
        if target.startswith("docker://"):
            image_id = cri.pull(target.removeprefix("docker://"))
        else:
            (image_id,) = cri.load(target.split(":")[1])
        assert image_id == images.busybox_image().id, "the configuration is the same"
        config_of = daemon.pod_config(cri)
        pod = cri.run_pod(config_of)
        container = cri.run_container(pod, cri.container_config("c", image_id, ["sleep", "1000"]), config_of)
        assert cri.exec(container, "cat", "/www/index.html").stdout == b"a web server in a pod\n"
        cri.remove_pod(pod)
        remove(cri, image_id)


def remove(cri, name):
    cri.image.RemoveImage(cri.pb.RemoveImageRequest(image=cri.pb.ImageSpec(image=name)), timeout=20)


def test_a_pull_for_a_pod_uses_the_credentials_of_its_namespace(tmp_path):
    logins = tmp_path / "logins"
    logins.mkdir()
    with (
        Registry(tmp_path / "private", private=True) as private,
        NodedDaemon(tmp_path, settings={"images": {"auth_dir": logins}}, insecure=[private.host]) as daemon,
        daemon.client() as cri,
    ):
        name = private.push(images.busybox_image(), "team/app", "1")
        login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        (logins / "team.json").write_text(json.dumps({"auths": {private.host: {"auth": login}}}))

        def pull(namespace):
            request = cri.pb.PullImageRequest(
                image=cri.pb.ImageSpec(image=name),
                sandbox_config=daemon.pod_config(cri, namespace=namespace),
            )
            return cri.image.PullImage(request, timeout=30).image_ref

        assert refused(pull, "guests").code() is grpc.StatusCode.PERMISSION_DENIED
        assert pull("team") == images.busybox_image().id
        assert refused(pull, "guests").code() is grpc.StatusCode.PERMISSION_DENIED, "here, but not for them"
