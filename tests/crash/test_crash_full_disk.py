"""A full disk below noded's root: clear refusals, nothing lost, and all is well when space returns."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from tests.crash.figures import publish
from tests.crash.small_disk import DaemonOnSmallDisk
from tests.crash.world import World
from tests.support import images
from tests.support.slow_registry import SlowRegistry

pytestmark = pytest.mark.root

DISK_MEGABYTES = 64
BTRFS_MEGABYTES = 128
EXIT_SECONDS = 30.0
LAYER_BYTES = 8 << 20


@pytest.fixture(scope="module")
def small(image_layout: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world whose daemon's root is a small disk."""
    with World(DaemonOnSmallDisk(tmp_path_factory.mktemp("small"), DISK_MEGABYTES), image_layout) as running:
        yield running


@pytest.fixture
def full(small: World) -> Iterator[World]:
    """The same, still with room."""
    yield small
    small.daemon.disk.free()
    small.daemon.disk.free_inodes()


@pytest.fixture
def doomed(image_layout: Path, tmp_path: Path) -> Iterator[World]:
    """One for a test that leaves nothing of it."""
    with World(DaemonOnSmallDisk(tmp_path, DISK_MEGABYTES), image_layout) as running:
        yield running


def refusal(call, *arguments) -> str:
    """The message with which a call is refused for want of space."""
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, caught.value.details()
    message = str(caught.value.details())
    assert "free space" in message, message
    return message


def remove_image(cri, name: str) -> None:
    request = cri.pb.RemoveImageRequest(image=cri.pb.ImageSpec(image=name))
    cri.image.RemoveImage(request, timeout=20)


def test_everything_is_refused_clearly_on_a_full_disk_and_works_when_space_returns(full, tmp_path, seed):
    print(f"seed {seed}")
    cri, disk = full.cri, full.daemon.disk
    big = images.build([images.tar([images.Entry("data", os.urandom(4 << 20))])])
    layout = images.write_layout(big, tmp_path / "big", "crash.example/big:1")
    cri.load(layout)  # starts the helper that unpacks, which stays
    remove_image(cri, "crash.example/big:1")
    before = full.oracle.take()
    pod, config = full.pod()
    container = cri.create(pod, full.main(), config)
    cri.start(container)
    other = full.daemon.pod_config(cri, pid="POD")
    disk.fill()
    held = full.oracle.take()
    refusal(cri.load, layout)
    refusal(cri.run_pod, other)
    refusal(cri.create, pod, full.main("second"), config)
    full.assert_unchanged(held)
    # What needs no space goes on.
    assert [one.id for one in cri.pods()] == [pod]
    assert cri.exec(container, "echo", "alive").stdout == b"alive\n"
    disk.free()
    cri.load(layout)
    remove_image(cri, "crash.example/big:1")
    cri.run_container(pod, full.main("second"), config)
    cri.remove_pod(cri.run_pod(other))
    cri.remove_pod(pod)
    full.assert_unchanged(before)


def test_a_disk_that_fills_up_amid_pulls_is_told_each_time(image_layout, tmp_path, seed, counts):
    """Half of a layer is there when the last block goes. Creates, loads and exits meet the full disk, too."""
    rounds = counts(1, 25)
    print(f"seed {seed}: {rounds} rounds")
    image = images.build([images.tar([images.Entry("data", os.urandom(LAYER_BYTES))])])
    other = images.build([images.tar([images.Entry("data", os.urandom(LAYER_BYTES // 2))])])
    archive = images.write_layout(other, tmp_path / "other", "crash.example/other:1")
    refused: Counter[str] = Counter()
    recovered = []
    with SlowRegistry(image) as registry:
        reference = f"{registry.host}/full/disk:1"
        daemon = DaemonOnSmallDisk(tmp_path / "small", DISK_MEGABYTES, insecure=[registry.host])
        with World(daemon, image_layout) as world:
            cri, disk = world.cri, daemon.disk
            registry.go_on.set()
            pull(cri, reference)  # starts the helper that unpacks, which stays
            remove_image(cri, reference)
            before = world.oracle.take()
            for _ in range(rounds):
                pod, config = world.pod()
                container = cri.run_container(pod, world.main(), config)
                held = world.oracle.take()
                registry.go_on.clear()
                spec = cri.pb.ImageSpec(image=reference)
                call = cri.image.PullImage.future(cri.pb.PullImageRequest(image=spec), timeout=60)
                wait_for_ingest(daemon.root / "content" / "ingest")
                disk.fill()
                registry.go_on.set()
                refusal(call.result)
                refused["pulls"] += 1
                disk.fill()  # what the pull had taken is free again
                for kind, act in (
                    ("pods", lambda: cri.run_pod(daemon.pod_config(cri))),
                    ("containers", lambda p=pod, c=config: cri.create(p, world.main("second"), c)),
                    ("loads", lambda: cri.load(archive)),
                ):
                    refusal(act)
                    refused[kind] += 1
                world.assert_unchanged(held)
                end(process_of(cri, container))
                disk.free()
                freed = time.monotonic()
                pull(cri, reference)
                recovered.append(time.monotonic() - freed)
                assert cri.wait_exited(container, EXIT_SECONDS).exit_code == 137
                remove_image(cri, reference)
                cri.remove_pod(pod)
                world.assert_unchanged(before)
    told = ", ".join(f"{count} {kind}" for kind, count in refused.items())
    publish(
        f"The disk fills up in the middle of a pull, {rounds} times",
        f"refused with RESOURCE_EXHAUSTED and what to free: {told}; {rounds} exits meanwhile told later; the "
        f"same pull has worked at most {max(recovered):.1f} s after space came back",
        seed,
    )


def pull(cri, reference: str) -> None:
    request = cri.pb.PullImageRequest(image=cri.pb.ImageSpec(image=reference))
    cri.image.PullImage(request, timeout=60)


def wait_for_ingest(directory: Path) -> None:
    """Wait until some of a layer is on the disk."""
    deadline = time.monotonic() + EXIT_SECONDS
    while not any(path.stat().st_size >= LAYER_BYTES // 4 for path in directory.rglob("*") if path.is_file()):
        assert time.monotonic() < deadline, f"nothing is written below {directory}"
        select.select([], [], [], 0.01)


def test_an_exit_on_a_full_disk_is_told_when_space_returns(full, seed):
    """Also over a SIGKILL meanwhile; and the daemon neither dies of it nor refuses to start."""
    print(f"seed {seed}")
    cri, disk = full.cri, full.daemon.disk
    before = full.oracle.take()
    pod, config = full.pod()
    containers = []
    for name in ("first", "second"):
        container = cri.create(pod, full.main(name, "/bin/sh", "-c", "sleep 10000; exit 1"), config)
        cri.start(container)
        containers.append(container)
    pids = [process_of(cri, container) for container in containers]
    daemon = full.daemon.pid
    disk.fill()
    end(pids[0])
    full.settled()
    assert full.daemon.running
    assert full.daemon.pid == daemon
    full.daemon.kill()
    end(pids[1])
    full.restarted()
    assert [one.id for one in cri.pods()] == [pod]
    disk.free()
    for container in containers:
        assert cri.wait_exited(container, EXIT_SECONDS).exit_code == 137
    cri.remove_pod(pod)
    full.assert_unchanged(before)


def process_of(cri, container: str) -> int:
    return int(json.loads(cri.verbose_status(container).info["info"])["pid"])


def end(pid: int) -> None:
    """SIGKILL a process and wait until it is gone."""
    process = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    assert select.select([process], [], [], EXIT_SECONDS)[0]
    os.close(process)


def test_pods_are_stopped_and_removed_on_a_full_disk(full, seed):
    """Otherwise an eviction could never free it."""
    print(f"seed {seed}")
    cri, disk = full.cri, full.daemon.disk
    before = full.oracle.take()
    pods = []
    for _ in range(3):
        pod, config = full.pod()
        container = cri.create(pod, full.main(), config)
        cri.start(container)
        pods.append((pod, container))
    disk.fill()
    cri.stop(pods[0][1])
    cri.remove(pods[1][1])
    for pod, _ in pods:
        cri.remove_pod(pod)
    full.assert_unchanged(before | {"run directories": full.oracle.take()["run directories"]})
    disk.free()
    full.assert_unchanged(before)


@pytest.mark.parametrize("hard", [True, False], ids=["killed", "stopped"])
def test_a_start_on_a_full_disk_takes_nothing_of_what_removals_need(full, hard, seed):
    """Nor does a stop give blocks back that others take then."""
    print(f"seed {seed}")
    before = full.oracle.take()
    pods = [full.pod()[0] for _ in range(2)]
    full.daemon.disk.fill()
    full.daemon.restart(hard=hard)
    full.settled()
    full.daemon.disk.fill()
    for pod in pods:
        full.cri.remove_pod(pod)
    full.assert_unchanged(before)


def test_without_inodes_creates_are_refused_and_work_again_when_there_are_some(full, seed):
    print(f"seed {seed}")
    cri, disk = full.cri, full.daemon.disk
    before = full.oracle.take()
    pod, config = full.pod()
    alone = full.oracle.take()
    disk.fill_inodes()
    refusal(cri.create, pod, full.main(), config)
    full.assert_unchanged(alone)
    disk.free_inodes()
    container = cri.run_container(pod, full.main(), config)
    assert cri.exec(container, "echo", "alive").stdout == b"alive\n"
    cri.remove_pod(pod)
    full.assert_unchanged(before)


def test_a_root_whose_file_system_fails_is_told_and_survived(doomed, seed):
    """What can be answered without writing is, and the containers go on."""
    print(f"seed {seed}")
    cri, disk = doomed.cri, doomed.daemon.disk
    pod, config = doomed.pod()
    container = cri.run_container(pod, doomed.main(), config)
    disk.fail()
    for call in (
        lambda: cri.run_pod(doomed.daemon.pod_config(cri)),
        lambda: cri.create(pod, doomed.main("second"), config),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            call()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE, caught.value.details()
        assert "check the file system of" in str(caught.value.details())
    assert [one.id for one in cri.pods()] == [pod]
    assert cri.exec(container, "echo", "alive").stdout == b"alive\n"
    assert doomed.daemon.running


def test_a_full_disk_that_copies_on_write_kills_no_daemon_and_no_start(image_layout, tmp_path, seed):
    """There a store to a mapped page of a file needs a block, and without one ends the process: SIGBUS."""
    print(f"seed {seed}")
    if "btrfs" not in Path("/proc/filesystems").read_text() or shutil.which("mkfs.btrfs") is None:
        pytest.skip("THIS NODE CANNOT MAKE A btrfs: a full one was not tested")
    with World(DaemonOnSmallDisk(tmp_path, BTRFS_MEGABYTES, "btrfs"), image_layout) as world:
        cri, disk = world.cri, world.daemon.disk
        before = world.oracle.take()
        pod, config = world.pod()
        container = cri.run_container(pod, world.main(), config)
        daemon = world.daemon.pid
        disk.fill()
        refusal(cri.run_pod, world.daemon.pod_config(cri))
        refusal(cri.create, pod, world.main("second"), config)
        assert cri.exec(container, "echo", "alive").stdout == b"alive\n"
        assert (world.daemon.running, world.daemon.pid) == (True, daemon)
        world.daemon.kill()
        world.restarted()
        assert [one.id for one in cri.pods()] == [pod]
        assert cri.status(container).state == cri.pb.CONTAINER_RUNNING
        end(process_of(cri, container))
        disk.free()
        assert cri.wait_exited(container, EXIT_SECONDS).exit_code == 137
        cri.remove_pod(pod)
        world.assert_unchanged(before)
