"""The VOLUMEs that an image declares, seen from inside."""

from __future__ import annotations

import pytest

from tests.runtime.e2e.conftest import HOST
from tests.support import images

pytestmark = [pytest.mark.root, pytest.mark.one_daemon]


@pytest.fixture
def declaring(cri, pushed) -> str:
    """An image with a VOLUME that it lacks and one that it has."""
    pushed.push(images.busybox_image(volumes=["/data/deep", "/etc"]), "e2e/declaring", "1")
    cri.pull(f"{HOST}/e2e/declaring:1")
    return f"{HOST}/e2e/declaring:1"


def test_a_declared_volume_is_a_directory_of_the_container_alone(cri, daemon, declaring, handler):
    pod = daemon.pod_config(cri)
    sandbox = cri.run_pod(pod, handler)
    config = cri.container_config("main", declaring, ["sleep", "1000"])
    config.linux.security_context.readonly_rootfs = True
    container = cri.run_container(sandbox, config, pod)
    script = (
        "echo mine >/data/deep/x && cat /data/deep/x; touch /x 2>&1 | grep -c Read-only; "
        "grep -c ' /data/deep ' /proc/mounts; grep -c ^web: /etc/passwd"
    )
    assert cri.exec(container, "/bin/sh", "-c", script).stdout.split() == [b"mine", b"1", b"1", b"1"]
    [made] = daemon.root.glob(f"containers/{container}/volumes/*/x")
    config.metadata.attempt = 1
    again = cri.run_container(sandbox, config, pod)
    assert cri.exec(again, "ls", "/data/deep").stdout == b""
    cri.remove(container)
    assert not made.exists()


def test_the_root_of_a_user_namespace_owns_a_declared_volume(cri, daemon, declaring):
    pod = daemon.pod_config(cri)
    mapping = cri.pb.IDMapping(host_id=400_000, container_id=0, length=65536)
    userns = cri.pb.UserNamespace(mode=cri.pb.POD, uids=[mapping], gids=[mapping])
    pod.linux.security_context.namespace_options.userns_options.CopyFrom(userns)
    sandbox = cri.run_pod(pod, "crun")
    config = cri.container_config("main", declaring, ["sleep", "1000"])
    config.linux.security_context.namespace_options.userns_options.CopyFrom(userns)
    container = cri.run_container(sandbox, config, pod)
    script = "stat -c %u:%g /data/deep; echo mine >/data/deep/x; cat /data/deep/x"
    answer = cri.exec(container, "/bin/sh", "-c", script)
    assert answer.stdout.split() == [b"0:0", b"mine"], answer
