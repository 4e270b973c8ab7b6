"""Seccomp profiles from a real registry, by the name `quay.io`, in real containers."""

from __future__ import annotations

import json

import grpc
import pytest

from tests.support import images
from tests.support.images import OCI_CONFIG, OCI_MANIFEST, Image, sha256

pytestmark = pytest.mark.root

OLD = "seccomp-profile.kubernetes.cri-o.io"
NEW = "seccomp-profile.crio.io"
OWN = "seccomp-profile.noded.io"
TRY = "chmod 600 /etc/passwd; echo chmod:$?; mkdir /d; echo mkdir:$?"


def profile(*calls: str) -> bytes:
    return json.dumps(
        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": list(calls), "action": "SCMP_ACT_ERRNO"}]}
    ).encode()


NO_CHMOD = profile("chmod", "fchmodat", "fchmodat2")
NO_MKDIR = profile("mkdir", "mkdirat")


def historic(content: bytes) -> Image:
    """An artifact as older tools made it: with the configuration type of an image."""
    config = b"{}"
    layer = {
        "mediaType": "application/vnd.cncf.seccomp-profile.layer.v1+json",
        "digest": sha256(content),
        "size": len(content),
        "annotations": {"org.opencontainers.image.title": "seccomp.json"},
    }
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "config": {"mediaType": OCI_CONFIG, "digest": sha256(config), "size": len(config)},
            "layers": [layer],
        }
    ).encode()
    return Image(manifest, OCI_MANIFEST, config, {sha256(config): config, sha256(content): content})


def push(shelf, name: str, content: bytes) -> str:
    shelf.push(images.artifact({"seccomp.json": content}), f"sec/{name}", "1")
    return f"quay.io/sec/{name}:1"


def run(daemon, cri, handler, image, annotations, *, seccomp=None, name="web") -> dict[str, str]:
    """What the container says of chmod and mkdir."""
    config = daemon.pod_config(cri, annotations=annotations)
    pod = cri.run_pod(config, handler)
    container = cri.container_config(name, image, ["/bin/sh", "-c", f"{TRY} 2>&1"])
    if seccomp is not None:
        kind = cri.pb.SecurityProfile.ProfileType.Value(seccomp)
        container.linux.security_context.seccomp.profile_type = kind
    identity = cri.run_container(pod, container, config)
    cri.wait_exited(identity)
    log = (daemon.pod_logs / f"{config.metadata.name}-0" / f"{name}.log").read_text()
    cri.remove_pod(pod)
    return dict(
        word.split(":")
        for word in log.split()
        if word.startswith(("chmod:", "mkdir:")) and word[-1].isdigit()
    )


def failure(daemon, cri, image, reference) -> str:
    config = daemon.pod_config(cri, annotations={f"{OLD}/POD": reference})
    pod = cri.run_pod(config)
    with pytest.raises(grpc.RpcError) as caught:
        cri.create(pod, cri.container_config("web", image, ["true"]), config)
    assert not cri.containers()
    return caught.value.details()


def test_a_profile_of_a_registry_blocks_what_it_says(daemon, cri, shelf, busybox, handler):
    chmod, mkdir = push(shelf, "chmod", NO_CHMOD), push(shelf, "mkdir", NO_MKDIR)
    both = run(daemon, cri, handler, busybox, {f"{OLD}/POD": chmod})
    assert both == {"chmod": "1", "mkdir": "0"}
    # the container's own before the pod's, the newer spelling before the older
    own = run(daemon, cri, handler, busybox, {f"{OLD}/POD": chmod, f"{NEW}/web": mkdir, f"{OLD}/web": chmod})
    assert own == {"chmod": "0", "mkdir": "1"}
    unconfined = run(daemon, cri, handler, busybox, {f"{OWN}/web": mkdir}, seccomp="Unconfined")
    assert unconfined == {"chmod": "0", "mkdir": "1"}
    default = run(daemon, cri, handler, busybox, {f"{OLD}/POD": chmod}, seccomp="RuntimeDefault")
    assert default == {"chmod": "0", "mkdir": "0"}


def test_a_handler_that_does_not_allow_the_annotation_passes_over_it(daemon, cri, shelf, busybox):
    chmod = push(shelf, "chmod", NO_CHMOD)
    assert run(daemon, cri, "closed", busybox, {f"{OLD}/POD": chmod}) == {"chmod": "0", "mkdir": "0"}


def test_an_image_brings_its_own_profile(daemon, cri, shelf):
    reference = push(shelf, "chmod", NO_CHMOD)
    plain = images.busybox_image()
    manifest = json.loads(plain.manifest) | {"annotations": {OLD: reference}}
    shelf.push(
        Image(json.dumps(manifest).encode(), plain.media_type, plain.config, plain.blobs), "sec/image", "1"
    )
    cri.pull("quay.io/sec/image:1")
    assert run(daemon, cri, "runc", "quay.io/sec/image:1", {}) == {"chmod": "1", "mkdir": "0"}
    cri.image.RemoveImage(cri.pb.RemoveImageRequest(image=cri.pb.ImageSpec(image="quay.io/sec/image:1")))


def test_an_artifact_of_an_older_tool_is_understood(daemon, cri, shelf, busybox):
    shelf.push(historic(NO_CHMOD), "sec/historic", "1")
    answer = run(daemon, cri, "runc", busybox, {f"{OLD}/web": "quay.io/sec/historic:1"})
    assert answer == {"chmod": "1", "mkdir": "0"}


def test_a_profile_that_cannot_be_used_fails_the_create_and_says_why(daemon, cri, shelf, busybox):
    assert "quay.io/sec/nowhere:1" in failure(daemon, cri, busybox, "quay.io/sec/nowhere:1")
    assert "is a container image" in failure(daemon, cri, busybox, "quay.io/e2e/busybox:1")
    assert "UPPER" in failure(daemon, cri, busybox, "UPPER/case")
    two = images.artifact({"a.json": NO_CHMOD, "b.json": NO_MKDIR})
    shelf.push(two, "sec/two", "1")
    assert "an artifact of 2 files: there must be exactly one" in failure(
        daemon, cri, busybox, "quay.io/sec/two:1"
    )
    large = push(shelf, "large", NO_CHMOD + b" " * (1 << 20))
    assert "more than 1048576" in failure(daemon, cri, busybox, large)
    typo = push(shelf, "typo", NO_CHMOD.replace(b"defaultAction", b"defaultAktion"))
    assert 'did you mean "defaultAction"?' in failure(daemon, cri, busybox, typo)
    listener = json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/x"}).encode()
    assert "listenerPath: not allowed" in failure(daemon, cri, busybox, push(shelf, "listener", listener))


def test_a_restart_needs_no_registry_and_a_damaged_copy_is_pulled_again(daemon, cri, shelf, busybox):
    reference = push(shelf, "offline", NO_CHMOD)
    wanted = {"chmod": "1", "mkdir": "0"}
    config = daemon.pod_config(cri, annotations={f"{OLD}/web": reference})
    pod = cri.run_pod(config)
    kept = cri.run_container(pod, cri.container_config("web", busybox, ["sleep", "1000"]), config)
    info = json.loads(cri.verbose_status(kept).info["info"])
    assert info["seccompArtifact"].startswith("quay.io/sec/offline@sha256:")
    daemon.restart(hard=True)
    cri.stop("0" * 64)
    shelf.stall()
    try:
        assert run(daemon, cri, "runc", busybox, {f"{OLD}/web": reference}) == wanted
        assert run(daemon, cri, "runc", busybox, {f"{OLD}/web": info["seccompArtifact"]}) == wanted
    finally:
        shelf.resume()
    blob = daemon.root / "content/blobs/sha256" / sha256(NO_CHMOD).removeprefix("sha256:")
    blob.write_bytes(NO_MKDIR)
    assert run(daemon, cri, "runc", busybox, {f"{OLD}/web": reference}) == wanted
    assert blob.read_bytes() == NO_CHMOD


def test_a_moved_tag_brings_the_new_profile(daemon, cri, shelf, busybox):
    reference = push(shelf, "moved", NO_CHMOD)
    assert run(daemon, cri, "runc", busybox, {f"{OLD}/web": reference})["chmod"] == "1"
    push(shelf, "moved", NO_MKDIR)
    assert run(daemon, cri, "runc", busybox, {f"{OLD}/web": reference}) == {"chmod": "0", "mkdir": "1"}
