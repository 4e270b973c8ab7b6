"""Additional image stores as operators meet them."""

from __future__ import annotations

import os
from pathlib import Path

import grpc
import pytest

from tests.support import images
from tests.support.daemon import NodedDaemon
from tests.support.processes import wait_for_lines
from tests.support.registry import Registry

pytestmark = pytest.mark.root


def condition(cri):
    conditions = cri.runtime.Status(cri.pb.StatusRequest(), timeout=10).status.conditions
    (found,) = (one for one in conditions if one.type == "NodedImageStores")
    return found


def reload(daemon: NodedDaemon, told: str) -> None:
    """SIGHUP; returns when the daemon's log tells once more what it has found of the store."""
    times = daemon.log.read_text().count(told)
    daemon.reload()
    wait_for_lines(daemon.log, told, times + 1)


def test_a_store_that_appears_is_used_in_place_and_its_loss_is_told(
    tmp_path: Path, pushed: Registry, daemon, cri
):
    own_registry = Registry(tmp_path / "registry")
    image = images.busybox_image()
    shared = tmp_path / "shared"
    name = own_registry.push(image, "e2e/busybox", "1")
    settings = {"images": {"additional_stores": [str(shared)]}}
    with (
        NodedDaemon(tmp_path / "second", settings=settings, insecure=[own_registry.host]) as second,
        second.client() as other,
    ):
        lost = condition(other)
        assert (lost.status, lost.reason) == (False, "StoreUnusable")
        assert f"{shared} is no additional image store" in lost.message

        (daemon.directory / "registries.conf").write_text(
            f'[[registry]]\nlocation = "{own_registry.host}"\ninsecure = true\n'
        )
        cri.pull(name)
        request = cri.admin_pb.SaveImageRequest(
            references=[name], path=str(shared), format=cri.admin_pb.STORE
        )
        cri.admin.SaveImage(request, timeout=30)
        reload(second, "additional image store read")
        assert condition(other).status
        assert [one.id for one in other.images()] == [image.id]

        assert other.pull(name) == image.id
        own = second.root / "layers"
        assert [path.name for path in own.iterdir()] == [".staging"]
        assert os.listdir(second.root / "content/blobs/sha256") == []
        (info,) = other.image.ImageFsInfo(other.pb.ImageFsInfoRequest(), timeout=10).image_filesystems
        assert info.used_bytes.value == 0

        # As for an image of the node's own: who asks for a pull wants the registry's word.
        own_registry.close()
        with pytest.raises(grpc.RpcError) as caught:
            other.pull(name)
        assert caught.value.details().startswith("RegistryUnavailable: ")

        pod = second.pod_config(other)
        pod_id = other.run_pod(pod)
        container = other.container_config("main", name, ["sh", "-c", "echo from the store"])
        container_id = other.run_container(pod_id, container, pod)
        assert other.wait_exited(container_id).exit_code == 0
