"""A node on btrfs, with quotas and an image store that others read."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from tests.support.daemon import NodedDaemon

HOST = "registry.example"
pytestmark = pytest.mark.root


@pytest.fixture
def btrfs(tmp_path):
    if "\tbtrfs\n" not in Path("/proc/filesystems").read_text() or shutil.which("mkfs.btrfs") is None:
        pytest.skip("THIS KERNEL HAS NO btrfs, or mkfs.btrfs is not installed: nothing was tested")
    image, target = tmp_path / "disk.img", tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(256 << 20)
    target.mkdir()
    subprocess.run(["mkfs.btrfs", "-q", image], check=True, capture_output=True)
    subprocess.run(["mount", "-o", "loop", image, target], check=True)
    subprocess.run(["btrfs", "quota", "enable", target], check=True)
    yield target
    subprocess.run(["umount", "--lazy", target], check=True)


def noded(daemon, *arguments):
    command = [sys.executable, "-m", "noded", *arguments, "--address", str(daemon.address)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)


def test_a_node_with_btrfs_limits_a_container_and_shares_its_images(btrfs, tmp_path, pushed):
    settings = {"images": {"storage_driver": "btrfs", "container_quota_bytes": 8 << 20}}
    mirrors = {HOST: pushed.host}
    with NodedDaemon(btrfs, settings=settings, mirrors=mirrors) as daemon, daemon.client() as cri:
        image = cri.pull(f"{HOST}/e2e/busybox:1")
        config_of = daemon.pod_config(cri, annotations={"noded.io/disk-quota": "0"})
        pod = cri.run_pod(config_of)
        config = cri.container_config("c", f"{HOST}/e2e/busybox:1", ["sleep", "1000"])
        container = cri.run_container(pod, config, config_of)
        written = cri.exec(
            container, "sh", "-c", "dd if=/dev/urandom of=/big bs=1M count=20 conv=fsync; rm /big"
        )
        assert b"quota exceeded" in written.stderr, written
        noded(daemon, "images", "export-store", str(tmp_path / "shared"), image)
        cri.remove_all_pods()
    settings = {"images": {"additional_stores": [str(tmp_path / "shared")]}}
    with NodedDaemon(tmp_path, settings=settings) as daemon, daemon.client() as cri:
        cri.stop("0" * 64)  # answered once the stores have been read
        (listed,) = cri.images()
        assert (listed.id, listed.pinned) == (image, True)
        config_of = daemon.pod_config(cri)
        pod = cri.run_pod(config_of)
        container = cri.run_container(pod, config, config_of)
        assert cri.exec(container, "echo", "runs").stdout == b"runs\n"
        with pytest.raises(grpc.RpcError, match="additional image store"):
            cri.image.RemoveImage(cri.pb.RemoveImageRequest(image=cri.pb.ImageSpec(image=image)), timeout=20)


def test_a_handler_with_a_storage_driver_of_its_own_makes_its_containers_with_it(tmp_path, pushed):
    settings = {"runtimes": {"copied": {"type": "runc", "storage_driver": "vfs"}}}
    roots = {}
    with (
        NodedDaemon(tmp_path, settings=settings, mirrors={HOST: pushed.host}) as daemon,
        daemon.client() as cri,
    ):
        cri.pull(f"{HOST}/e2e/busybox:1")
        for handler in ("runc", "copied"):
            config_of = daemon.pod_config(cri)
            pod = cri.run_pod(config_of, handler)
            config = cri.container_config("c", f"{HOST}/e2e/busybox:1", ["sleep", "1000"])
            container = cri.run_container(pod, config, config_of)
            mounted = cri.exec(container, "cat", "/proc/mounts").stdout.decode().splitlines()
            roots[handler] = next(line.split()[2] for line in mounted if line.split()[1] == "/")
    assert roots["runc"] == "overlay"
    assert roots["copied"] != "overlay"
