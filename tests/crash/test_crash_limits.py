"""The node has no process left, or no space for logs, or a read-only disk: told, survived, recovered."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from tests.crash.faults import FaultyDaemon
from tests.crash.figures import publish
from tests.crash.small_disk import DaemonOnSmallDisk, SmallDisk
from tests.crash.world import World

pytestmark = pytest.mark.root

PIDS = next((path for path in map(Path, ("/sys/fs/cgroup/pids", "/sys/fs/cgroup")) if path.is_dir()), Path())
AT_ONCE = 12
ROOM = 6  # processes and threads beyond those that are there
DISK_MEGABYTES = 16
IN_TIME_SECONDS = 60.0
WRITER = "while :; do echo a line of a log that nobody rotates; done"


@contextmanager
def few_processes(pid: int) -> Iterator[None]:
    """Let a process and its children have some more processes only, as TasksMax= of systemd does."""
    own = next(
        line.split(":", 2)[2]
        for line in Path("/proc/self/cgroup").read_text().splitlines()
        if line.split(":")[1] in ("pids", "")
    )
    cgroup = PIDS / own.lstrip("/") / f"limit-{pid}"
    cgroup.mkdir()
    try:
        (cgroup / "cgroup.procs").write_text(str(pid))
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in path.read_text().split():
                (cgroup / "cgroup.procs").write_text(child)
        count = int((cgroup / "pids.current").read_text())
        (cgroup / "pids.max").write_text(str(count + ROOM))
        yield
    finally:
        for one in (cgroup / "cgroup.procs").read_text().split():
            (cgroup.parent / "cgroup.procs").write_text(one)
        cgroup.rmdir()


def test_too_few_processes_refuse_calls_and_lose_nothing(image_layout, tmp_path, seed):
    """Creates at once need more than noded may have; it lives, its pods go on, and all work afterwards."""
    print(f"seed {seed}")
    with World(FaultyDaemon(tmp_path), image_layout) as world:
        cri = world.cri
        before = world.oracle.take()
        pod, config = world.pod()
        container = cri.run_container(pod, world.main(), config)
        alone = world.oracle.take()
        configs = [world.daemon.pod_config(cri) for _ in range(AT_ONCE)]
        refused = []
        with few_processes(world.daemon.pid):
            calls = [
                cri.runtime.RunPodSandbox.future(cri.pb.RunPodSandboxRequest(config=one), timeout=60)
                for one in configs
            ]
            for call in calls:
                try:
                    call.result()
                except grpc.RpcError as error:
                    refused.append((error.code(), error.details()))
        print(f"{len(refused)} of {AT_ONCE} creates were refused: {refused[:2]}")
        assert world.daemon.running, world.daemon.log_text()
        told = {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE}
        assert {code for code, _ in refused} <= told, refused
        assert cri.exec(container, "echo", "alive").stdout == b"alive\n"
        for one in configs:
            cri.remove_pod(cri.run_pod(one))
        world.assert_unchanged(alone)
        cri.remove_pod(pod)
        world.assert_unchanged(before)


def test_a_full_disk_for_logs_stops_no_container_and_no_call(world, tmp_path, seed, counts):
    """Containers write on, exec and stop go on, and what starts when there is room again is logged."""
    rounds = counts(1, 25)
    print(f"seed {seed}: {rounds} rounds")
    before = world.oracle.take()
    disk = SmallDisk(tmp_path / "logs.img", tmp_path / "logs", DISK_MEGABYTES)
    try:
        stopped = [fill_logs(world, disk, tmp_path / "logs") for _ in range(rounds)]
    finally:
        disk.close()
    world.assert_unchanged(before)
    publish(
        f"The disk of the logs is full, {rounds} times",
        f"{rounds} containers wrote on, {rounds} execs, {rounds} starts and {rounds} exit codes were right, "
        f"stops with 1 s of grace took at most {max(stopped):.1f} s; logged again when there was room",
        seed,
    )


def fill_logs(world: World, disk: SmallDisk, logs: Path) -> float:
    """One round; how long the stop of a container took whose log cannot be written."""
    cri = world.cri
    pod, config = world.pod(log_directory=logs)
    writer = cri.run_container(pod, world.main("writer", "/bin/sh", "-c", WRITER), config)
    disk.fill()
    assert cri.exec(writer, "echo", "alive").stdout == b"alive\n"
    second = cri.create(pod, world.main("second", "/bin/sh", "-c", "echo second; exit 3"), config)
    cri.start(second)
    assert cri.wait_exited(second).exit_code == 3
    started = time.monotonic()
    cri.stop(writer, grace_seconds=1)
    stopped = time.monotonic() - started
    assert stopped < IN_TIME_SECONDS
    assert cri.status(writer).state == cri.pb.CONTAINER_EXITED
    disk.free()
    (logs / "writer.log").write_bytes(b"")  # as kubelet does when it rotates
    third = cri.run_container(pod, world.main("third", "/bin/sh", "-c", "echo third"), config)
    cri.wait_exited(third)
    assert (logs / "third.log").read_text().endswith(" stdout F third\n")
    cri.remove_pod(pod)
    for path in logs.glob("*.log"):  # kubelet's to remove
        path.unlink()
    return stopped


def test_a_root_that_came_up_read_only_is_told_and_taken_when_it_can_be_written(image_layout, tmp_path, seed):
    print(f"seed {seed}")
    with World(DaemonOnSmallDisk(tmp_path, 64), image_layout) as world:
        before = world.oracle.take()
        assert world.daemon.stop() == 0
        subprocess.run(["mount", "-o", "remount,ro", world.daemon.root], check=True)
        with pytest.raises(AssertionError, match="noded ended with status 1") as refusal:
            world.daemon.start()
        told = str(refusal.value)
        assert "Read-only file system" in told or "check the file system of" in told
        assert "Traceback" not in told
        subprocess.run(["mount", "-o", "remount,rw", world.daemon.root], check=True)
        world.daemon.start()
        world.settled()
        world.cri.remove_pod(world.pod()[0])
        world.assert_unchanged(before)
