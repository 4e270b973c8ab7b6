"""Images and artifacts as volumes of containers, as kubelet asks for them (CRI `Mount.image`)."""

from __future__ import annotations

import grpc
import pytest

from tests.support import images

HOST = "registry.example"
MODEL = images.artifact({"model.bin": b"weights", "docs/README.md": b"read me"})
pytestmark = pytest.mark.root


@pytest.fixture
def model(cri, pushed) -> str:
    """Reference of a pulled artifact."""
    pushed.push(MODEL, "e2e/model", "1")
    assert cri.pull(f"{HOST}/e2e/model:1") == MODEL.digest
    return f"{HOST}/e2e/model:1"


def mount(cri, image: str, path: str = "/volume", sub_path: str = "", *, readonly: bool = True):
    return cri.pb.Mount(
        container_path=path, readonly=readonly, image=cri.pb.ImageSpec(image=image), image_sub_path=sub_path
    )


def run(cri, daemon, handler, image, *mounts, userns=None):
    """A running container with these mounts; returns (pod, container)."""
    pod = daemon.pod_config(cri)
    if userns is not None:
        pod.linux.security_context.namespace_options.userns_options.CopyFrom(userns)
    sandbox = cri.run_pod(pod, handler)
    config = cri.container_config("main", image, ["sleep", "1000"])
    config.mounts.extend(mounts)
    if userns is not None:
        config.linux.security_context.namespace_options.userns_options.CopyFrom(userns)
    return sandbox, cri.run_container(sandbox, config, pod)


def text(cri, container: str, *command: str) -> str:
    answer = cri.exec(container, *command)
    return (answer.stdout + answer.stderr).decode()


def test_an_image_volume_is_the_image_read_only(cri, daemon, oracle, busybox, http, handler):
    before = oracle.take()
    image_id = images.http_image().id
    pod, container = run(cri, daemon, handler, busybox, mount(cri, http), mount(cri, http, "/etc2", "etc"))
    assert "a web server" in text(cri, container, "cat", "/volume/www/index.html")
    assert "web:x:1000" in text(cri, container, "cat", "/etc2/passwd")
    for path in ("/volume/x", "/etc2/passwd"):
        assert "Read-only file system" in text(cri, container, "touch", path)
    reported = {item.container_path: item.image.image_ref for item in cri.status(container).mounts}
    assert reported["/volume"] == reported["/etc2"] == image_id
    cri.remove_pod(pod)
    oracle.assert_unchanged(before)


def test_a_mounted_image_that_is_removed_stays_until_its_container_goes(cri, daemon, busybox, http, pushed):
    pod, container = run(cri, daemon, "runc", busybox, mount(cri, http))
    cri.image.RemoveImage(cri.pb.RemoveImageRequest(image=cri.pb.ImageSpec(image=http)), timeout=20)
    assert "a web server" in text(cri, container, "cat", "/volume/www/index.html")
    (shown,) = [item for item in cri.status(container).mounts if item.container_path == "/volume"]
    assert shown.image.image_ref == images.http_image().id
    cri.remove_pod(pod)


def test_volumes_survive_a_restart_of_the_daemon(cri, daemon, busybox, http):
    pod, container = run(cri, daemon, "runc", busybox, mount(cri, http))
    daemon.restart(hard=True)
    with daemon.client() as again:
        again.stop("0" * 64)
        assert "a web server" in text(again, container, "cat", "/volume/www/index.html")
        again.remove_pod(pod)
    assert not list((daemon.state / "containers").iterdir())


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"sub_path": "none"}, grpc.StatusCode.UNKNOWN, "ImageVolumeMountFailed: mounts[0].image_sub_path"),
        ({"readonly": False}, grpc.StatusCode.INVALID_ARGUMENT, "mounts[0].readonly"),
        ({"sub_path": "../etc"}, grpc.StatusCode.INVALID_ARGUMENT, "mounts[0].image_sub_path"),
        ({"image": f"{HOST}/none:1"}, grpc.StatusCode.UNKNOWN, "ImageVolumeMountFailed: mounts[0].image"),
    ],
)
def test_a_volume_that_cannot_be_is_refused_and_nothing_stays(
    cri, daemon, oracle, busybox, changes, code, words
):
    before = oracle.take()
    pod = daemon.pod_config(cri)
    sandbox = cri.run_pod(pod)
    config = cri.container_config("main", busybox, ["sleep", "1000"])
    config.mounts.append(mount(cri, **{"image": busybox, **changes}))
    with pytest.raises(grpc.RpcError) as caught:
        cri.create(sandbox, config, pod)
    assert caught.value.code() is code
    assert words in caught.value.details()
    assert cri.containers() == []
    cri.remove_pod(sandbox)
    oracle.assert_unchanged(before)


def test_an_artifact_is_listed_and_mounted_as_files(cri, daemon, busybox, model, handler):
    (listed,) = [image for image in cri.images() if image.id == MODEL.digest]
    assert list(listed.repo_tags) == [model]
    assert listed.size > 0
    pod, container = run(
        cri, daemon, handler, busybox, mount(cri, model), mount(cri, model, "/readme", "docs/README.md")
    )
    assert text(cri, container, "cat", "/volume/model.bin") == "weights"
    assert text(cri, container, "cat", "/readme") == "read me"
    cri.remove_pod(pod)


def test_no_container_is_made_from_an_artifact(cri, daemon, model):
    pod = daemon.pod_config(cri)
    sandbox = cri.run_pod(pod)
    with pytest.raises(grpc.RpcError) as caught:
        cri.create(sandbox, cri.container_config("main", model, ["x"]), pod)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "artifact of type 'application/vnd.example.model'" in caught.value.details()


def test_a_pod_with_a_user_namespace_reads_its_volumes(cri, daemon, busybox, http):
    mapping = cri.pb.IDMapping(host_id=400_000, container_id=0, length=65536)
    userns = cri.pb.UserNamespace(mode=cri.pb.POD, uids=[mapping], gids=[mapping])
    pod, container = run(cri, daemon, "crun", busybox, mount(cri, http), userns=userns)
    assert text(cri, container, "stat", "-c", "%u", "/volume/www/index.html") == "0\n"
    assert "a web server" in text(cri, container, "cat", "/volume/www/index.html")
    cri.remove_pod(pod)


def test_a_short_name_finds_what_its_alias_pulled(cri, daemon, pushed):
    drop_ins = daemon.directory / "registries.conf.d"
    drop_ins.mkdir()
    (drop_ins / "aliases.conf").write_text(f'[aliases]\nbox = "{HOST}/e2e/busybox"\n')
    image_id = cri.pull("box:1")
    request = cri.pb.ImageStatusRequest(image=cri.pb.ImageSpec(image="box:1"))
    found = cri.image.ImageStatus(request, timeout=10).image
    assert (found.id, list(found.repo_tags)) == (image_id, [f"{HOST}/e2e/busybox:1"])
    pod, container = run(cri, daemon, "runc", "box:1", mount(cri, "box:1"))
    assert cri.status(container).image_id == image_id
    cri.remove_pod(pod)
