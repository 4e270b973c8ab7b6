"""A node on btrfs, with quotas and an image store that others read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from tests.support.daemon import NodedDaemon
from tests.support.disks import mounted_disk

HOST = "registry.example"
pytestmark = pytest.mark.root


@pytest.fixture
def btrfs(tmp_path):
    with mounted_disk("btrfs", tmp_path) as disk:
        subprocess.run(["btrfs", "quota", "enable", disk], check=True)
        yield disk


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


def du(*options):
    lines = subprocess.run(["du", "-s", *options], capture_output=True, check=True).stdout.splitlines()
    return sum(int(line.split()[0]) for line in lines)


def test_images_may_have_a_file_system_of_their_own(tmp_path, pushed):
    with (
        mounted_disk("ext4", tmp_path) as disk,
        NodedDaemon(
            tmp_path, settings={"images": {"root": disk / "images"}}, mirrors={HOST: pushed.host}
        ) as daemon,
        daemon.client() as cri,
    ):
        images, containers = disk / "images", daemon.root / "containers"
        empty = du("--inodes", images / "content", images / "layers")
        cri.pull(f"{HOST}/e2e/busybox:1")
        config_of = daemon.pod_config(cri)
        pod = cri.run_pod(config_of)
        config = cri.container_config("c", f"{HOST}/e2e/busybox:1", ["sleep", "1000"])
        container = cri.run_container(pod, config, config_of)
        cri.exec(container, "sh", "-c", "dd if=/dev/urandom of=/big bs=1M count=5; touch /a /b; sync")
        assert not (daemon.root / "layers").exists()
        assert not (daemon.root / "content").exists()
        answer = cri.image.ImageFsInfo(cri.pb.ImageFsInfoRequest(), timeout=10)
        (image_fs,), (container_fs,) = answer.image_filesystems, answer.container_filesystems
        for told, place in ((image_fs, images), (container_fs, containers)):
            assert Path(told.fs_id.mountpoint).stat().st_dev == place.stat().st_dev
        assert images.stat().st_dev != containers.stat().st_dev
        subprocess.run(["sync"], check=True)
        found = du("-B1", images / "content", images / "layers")
        assert abs(found - image_fs.used_bytes.value) <= found // 100 + empty * 4096
        assert image_fs.inodes_used.value == du("--inodes", images / "content", images / "layers") - empty
        assert abs(du("-B1", containers) - container_fs.used_bytes.value) <= (5 << 20) // 100
        assert container_fs.used_bytes.value > (5 << 20)
        assert container_fs.inodes_used.value == du("--inodes", containers)
        with pytest.raises(AssertionError, match="in use by noded process"):
            NodedDaemon(tmp_path / "second", settings={"images": {"root": images}}).__enter__()
        daemon.restart(hard=True)
        with daemon.client() as again:
            assert [name for one in again.images() for name in one.repo_tags] == [f"{HOST}/e2e/busybox:1"]
            again.remove_all_pods()
            (one,) = again.images()
            again.image.RemoveImage(
                again.pb.RemoveImageRequest(image=again.pb.ImageSpec(image=one.id)), timeout=30
            )
        assert du("--inodes", images / "content", images / "layers") == empty


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
