"""CheckpointContainer and restore by CreateContainer, with CRIU, as kubelet and crictl ask for them."""

from __future__ import annotations

import io
import json
import os
import tarfile
import time
from dataclasses import replace

import grpc
import pytest

from tests.support import images
from tests.support.criu import need_criu, need_crun_with_criu
from tests.support.daemon import NodedDaemon

HOST = "registry.example"
COUNT = """
echo kept >/kept; rm /etc/group; mkdir -p /data/sub; ln /kept /data/link; ln -s /kept /data/sub/soft
i=0; while :; do i=$((i+1)); echo count $i; echo $i >/counter; sleep 0.05; done
"""


@pytest.fixture
def daemon(tmp_path, pushed):
    criu = need_criu()
    environment = {"PATH": f"{criu}:{os.environ['PATH']}"}
    with NodedDaemon(
        tmp_path,
        mirrors={HOST: pushed.host},
        insecure=[pushed.host],
        settings={"checkpoint": {"restore": True}},
        environment=environment,
    ) as running:
        yield running


@pytest.fixture
def handler():
    """Of the counter's pod; tests may override it."""
    return "runc"


@pytest.fixture
def counter(daemon, cri, busybox, handler):
    if handler == "crun":
        need_crun_with_criu()
    config = daemon.pod_config(cri)
    pod = cri.run_pod(config, handler)
    request = cri.container_config("counter", busybox, ["sh", "-c", COUNT], annotations={"a": "b"})
    container = cri.run_container(pod, request, config)
    wait_count(daemon, config, "counter", 5)
    return config, pod, request, container


def checkpoint(cri, container, location, seconds=0):
    cri.runtime.CheckpointContainer(
        cri.pb.CheckpointContainerRequest(container_id=container, location=str(location), timeout=seconds),
        timeout=120,
    )


def counts_of(daemon, config, name):
    path = f"{config.log_directory}/{name}.log"
    try:
        with open(path) as file:
            return [int(line.split()[-1]) for line in file if line.endswith("\n") and "count" in line]
    except FileNotFoundError:
        return []


def wait_count(daemon, config, name, least, seconds=30.0):
    end = time.monotonic() + seconds
    while not (found := counts_of(daemon, config, name)) or found[-1] < least:
        assert time.monotonic() < end, f"{name} did not count to {least}: {found[-3:]}"
        time.sleep(0.02)
    return found


@pytest.mark.parametrize("handler", ["runc", "crun"])
def test_a_counter_checkpointed_removed_and_restored_goes_on_counting(
    daemon, cri, counter, handler, tmp_path
):
    config, pod, _, container = counter
    archive = tmp_path / "checkpoint.tar"
    checkpoint(cri, container, archive)
    assert cri.status(container).state == cri.pb.CONTAINER_RUNNING
    assert archive.stat().st_mode & 0o777 == 0o600
    saved = json.loads(member(archive, "config.dump"))
    assert saved["rootfsImage"] == f"{HOST}/e2e/busybox:1"
    assert saved["rootfsImageRef"] == cri.status(container).image_ref
    assert (saved["id"], saved["name"], saved["runtime"]) == (container, "counter", handler)
    assert json.loads(member(archive, "deleted.files")) == ["etc/group"]
    spec = json.loads(member(archive, "spec.dump"))
    assert json.loads(spec["annotations"]["io.kubernetes.cri-o.Annotations"]) == {"a": "b"}
    assert b"count 5" in member(archive, "container.log")
    with tarfile.open(fileobj=io.BytesIO(member(archive, "rootfs-diff.tar"))) as diff:
        at_checkpoint = int(diff.extractfile("counter").read())
        assert diff.getmember("data/sub/soft").linkname == "/kept"
    wait_count(daemon, config, "counter", at_checkpoint + 3)  # it lives on
    cri.remove(container)

    again = cri.container_config("again", str(archive), annotations={"a": "b"})
    restored = cri.create(pod, again, config)
    assert cri.status(restored).state == cri.pb.CONTAINER_CREATED
    archive.unlink()  # the container has its own copy until it runs
    daemon.restart(hard=True)
    cri.stop("0" * 64)
    assert cri.status(restored).state == cri.pb.CONTAINER_CREATED
    cri.start(restored)
    found = wait_count(daemon, config, "again", at_checkpoint + 5)
    assert at_checkpoint <= found[0] <= at_checkpoint + 2
    assert cri.exec(restored, "cat", "/kept", "/data/link", "/data/sub/soft").stdout == b"kept\n" * 3
    assert cri.exec(restored, "ls", "/etc/group").exit_code != 0
    assert os.listdir(daemon.root / "restores") == os.listdir(daemon.root / "checkpoints") == []
    status = cri.status(restored)
    assert status.image.user_specified_image == str(archive)
    assert status.image_ref == saved["rootfsImageRef"]
    daemon.restart(hard=True)
    cri.stop("0" * 64)
    wait_count(daemon, config, "again", found[-1] + 3)
    cri.stop(restored)
    assert cri.status(restored).exit_code == 137
    cri.remove_pod(pod)


def test_an_image_made_of_an_archive_is_restored(daemon, cri, counter, tmp_path, registry):
    config, pod, _, container = counter
    archive = tmp_path / "checkpoint.tar"
    checkpoint(cri, container, archive, seconds=60)
    registry.push(checkpoint_image(archive), "e2e/checkpoint", "1")
    reference = f"{HOST}/e2e/checkpoint:1"
    cri.pull(reference)
    restored = cri.create(pod, cri.container_config("again", reference), config)
    cri.start(restored)
    found = wait_count(daemon, config, "again", 8)
    assert found[0] >= 5
    cri.remove_pod(pod)


def test_a_container_being_checkpointed_when_the_daemon_dies_goes_on(daemon, cri, counter, tmp_path):
    config, pod, _, container = counter
    bundle = daemon.state / "containers" / container
    call = cri.runtime.CheckpointContainer.future(
        cri.pb.CheckpointContainerRequest(container_id=container, location=str(tmp_path / "c.tar")),
        timeout=60,
    )
    end = time.monotonic() + 30
    while not (bundle / "checkpointing").exists():
        assert time.monotonic() < end
        assert not call.done()
    daemon.kill()
    call.cancel()
    assert os.listdir(daemon.root / "checkpoints") == [container]
    daemon.start()
    cri.stop("0" * 64)
    before = counts_of(daemon, config, "counter")[-1]
    wait_count(daemon, config, "counter", before + 3)
    assert not (bundle / "checkpointing").exists()
    assert os.listdir(daemon.root / "checkpoints") == []
    checkpoint(cri, container, tmp_path / "d.tar")
    cri.remove_pod(pod)


def test_a_container_removed_while_it_is_checkpointed_leaves_no_half_archive(daemon, cri, counter, tmp_path):
    _, pod, _, container = counter
    mark = daemon.state / "containers" / container / "checkpointing"
    archives = tmp_path / "archives"
    archives.mkdir()
    call = cri.runtime.CheckpointContainer.future(
        cri.pb.CheckpointContainerRequest(container_id=container, location=str(archives / "c.tar")),
        timeout=60,
    )
    end = time.monotonic() + 30
    while not mark.exists():
        assert time.monotonic() < end
        assert not call.done()
    cri.remove(container)
    error = call.exception(timeout=60)
    if error is None:  # it was saved before the removal came
        assert os.listdir(archives) == ["c.tar"]
    else:
        assert error.code() is grpc.StatusCode.ABORTED, error
        assert os.listdir(archives) == []
    assert os.listdir(daemon.root / "checkpoints") == []
    assert not mark.parent.exists()
    cri.remove_pod(pod)


def test_hostile_archives_and_locations_are_refused_and_leave_nothing(daemon, cri, counter, tmp_path):
    config, pod, _, container = counter
    archive = tmp_path / "checkpoint.tar"
    checkpoint(cri, container, archive)
    inventory, dump = "checkpoint/inventory.img", b'{"mounts": [{"destination": "/host"}]}'
    cases = {
        "no.tar": (b"not a tar", "is not a readable checkpoint archive"),
        "empty.tar": (repack(archive, drop={"config.dump"}), "it has no config.dump"),
        "dots.tar": (repack(archive, add=[("../../escaped", b"x")]), 'has a ".." component'),
        "link.tar": (
            repack(archive, drop={inventory}, links=[(inventory, "/etc/hostname")]),
            "no regular file",
        ),
        "delete.tar": (
            repack(archive, drop={"deleted.files"}, add=[("deleted.files", b'["../../x"]')]),
            "is none",
        ),
        "mounts.tar": (repack(archive, drop={"spec.dump"}, add=[("spec.dump", dump)]), "/host"),
    }
    for location, code in (
        ("", "INVALID_ARGUMENT"),
        ("relative.tar", "INVALID_ARGUMENT"),
        ("/dev/null", "INVALID_ARGUMENT"),
        ("/no/such/directory/c.tar", "NOT_FOUND"),
    ):
        with pytest.raises(grpc.RpcError, match="location") as caught:
            checkpoint(cri, container, location)
        assert caught.value.code().name == code
    for name, (data, words) in cases.items():
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(grpc.RpcError) as caught:
            cri.create(pod, cri.container_config(f"x-{name.split('.')[0]}", str(path)), config)
        assert words in caught.value.details(), name
    assert sorted(os.listdir(daemon.root / "containers")) == [container]
    cri.remove_pod(pod)


def checkpoint_image(archive):
    """What `buildah add` and `buildah config --annotation` make of an archive."""
    made = images.build([archive.read_bytes()])
    manifest = json.loads(made.manifest)
    manifest["annotations"] = {"io.kubernetes.cri-o.annotations.checkpoint.name": "counter"}
    return replace(made, manifest=json.dumps(manifest).encode())


def member(archive, name):
    with tarfile.open(archive) as tar:
        return tar.extractfile(name).read()


def repack(archive, *, drop=frozenset(), add=(), links=()):
    """The archive without some members and with others."""
    target = io.BytesIO()
    with tarfile.open(archive) as tar, tarfile.open(fileobj=target, mode="w") as out:
        for info in tar:
            if info.name not in drop:
                out.addfile(info, tar.extractfile(info) if info.isreg() else None)
        for name, data in add:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
        for name, link in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, link
            out.addfile(info)
    return target.getvalue()
