"""What noded knows by number becomes something else: process ids are reused, the node has rebooted."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import pytest

from tests.crash.faults import FaultyDaemon
from tests.crash.small_disk import DaemonOnSmallDisk
from tests.crash.world import World
from tests.support.processes import monitors

pytestmark = pytest.mark.root

LAST_PID = Path("/proc/sys/kernel/ns_last_pid")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
END_SECONDS = 20.0
DISK_MEGABYTES = 64
TRIES = 200  # another process of this namespace may take the number first


@contextmanager
def stranger(pid: int) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has nothing to do with noded, with this process id."""
    for _ in range(TRIES):
        LAST_PID.write_text(str(pid - 1))
        process = subprocess.Popen(["sleep", "100000"])
        if process.pid == pid:
            break
        process.kill()
        process.wait()
    else:
        raise AssertionError(f"process id {pid} is not to be had")
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def end(pid: int) -> None:
    """SIGKILL, and wait until the number is free."""
    process = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    assert select.select([process], [], [], END_SECONDS)[0]
    os.close(process)


@pytest.mark.parametrize("handler", ["runc", "crun"])
def test_whoever_gets_the_process_ids_of_a_dead_pod_is_left_alone(world, handler, seed):
    """All its processes die and their ids are reused while noded is down."""
    print(f"seed {seed}")
    cri = world.cri
    before = world.oracle.take()
    pod, config = world.pod(handler)
    container = cri.run_container(pod, world.main(), config)
    other, other_config = world.pod(handler)
    alive = cri.run_container(other, world.main(), other_config)
    init = int(json.loads(cri.pod_status(pod, verbose=True).info["info"])["pid"])
    main = int(json.loads(cri.verbose_status(container).info["info"])["pid"])
    pids = [*monitors(container), *monitors(pod), main, init]
    assert len(set(pids)) >= 4
    world.daemon.kill()
    for pid in pids:
        try:
            end(pid)
        except ProcessLookupError:  # died with its monitor or its namespace
            continue
    with ExitStack() as stack:
        strangers = [stack.enter_context(stranger(pid)) for pid in sorted(set(pids))]
        world.restarted()
        deadline = time.monotonic() + END_SECONDS
        while cri.status(container).state != cri.pb.CONTAINER_EXITED:
            assert time.monotonic() < deadline, "its end is not noticed"
            select.select([], [], [], 0.02)
        assert cri.status(container).exit_code != 0
        assert cri.exec(alive, "echo", "alive").stdout == b"alive\n"
        cri.remove_pod(pod)
        assert [one.poll() for one in strangers] == [None] * len(strangers)
    cri.remove_pod(other)
    world.assert_unchanged(before)


class RebootableDaemon(FaultyDaemon):
    """A noded on a node that can lose everything that a power cut takes."""

    def cut_power(self) -> None:
        """No process, mount, namespace, link, cgroup or file of /run survives; disks do."""
        self._remove_traces()
        self.state.mkdir(mode=0o711)
        # Rules are lost, too. But of those here only its own: other tests may have left some.
        saved = subprocess.run(["iptables-save", "-t", "nat"], check=True, capture_output=True, text=True)
        lines = saved.stdout.splitlines(keepends=True)
        ours = [
            line.split()[-1] for line in lines if f'name: \\"{self.network}\\"' in line and " -j CNI-" in line
        ]
        kept = [
            line
            for line in lines
            if f'name: \\"{self.network}\\"' not in line and not any(chain in line for chain in ours)
        ]
        subprocess.run(["iptables-restore"], input="".join(kept), check=True, text=True)


@contextmanager
def new_boot_id(tmp_path: Path) -> Iterator[None]:
    """The kernel says another one within the block."""
    file = tmp_path / "boot_id"
    file.write_text(f"{uuid.uuid4()}\n")
    subprocess.run(["mount", "--bind", file, BOOT_ID], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", BOOT_ID], check=True)


def test_after_a_reboot_the_first_answer_tells_the_end_of_all_and_no_address_is_lost(
    image_layout, tmp_path, seed
):
    print(f"seed {seed}")
    with World(RebootableDaemon(tmp_path), image_layout) as world:
        cri, daemon = world.cri, world.daemon
        before = world.oracle.take()
        pods, running = [], []
        for handler in ("runc", "crun"):
            pod, config = world.pod(handler)
            running.append(cri.run_container(pod, world.main(), config))
            running.append(cri.create(pod, world.main("created"), config))
            ended = cri.run_container(pod, world.main("ended", "/bin/sh", "-c", "exit 3"), config)
            assert cri.wait_exited(ended).exit_code == 3
            pods.append((pod, config, ended))
        held = sorted(path.name for path in daemon.ipam.rglob("10.*"))
        assert len(held) == 2
        daemon.kill()
        daemon.cut_power()
        with new_boot_id(tmp_path):
            daemon.start()
            # At once: nothing may be told to run that does not.
            assert {pod.state for pod in cri.pods()} == {cri.pb.SANDBOX_NOTREADY}
            assert {one.state for one in cri.containers()} == {cri.pb.CONTAINER_EXITED}
            world.settled()
            for container in running:
                assert cri.status(container).exit_code != 0
            for pod, config, ended in pods:
                assert cri.status(ended).exit_code == 3
                cri.stop_pod(pod)
                config.metadata.attempt = 1
                again = cri.run_pod(config, "runc")
                assert (
                    cri.exec(cri.run_container(again, world.main(), config), "echo", "alive").stdout
                    == b"alive\n"
                )
                cri.remove_pod(again)
                cri.remove_pod(pod)
            assert [*daemon.ipam.rglob("10.*")] == []
            daemon.kill()
        world.restarted()
        world.assert_unchanged(before)


class NodeWithFailingDisk(DaemonOnSmallDisk, RebootableDaemon):
    """A noded whose root's file system can fail, on a node that can be rebooted."""


def test_after_its_root_failed_and_was_checked_a_node_goes_on_with_all_that_it_knew(
    image_layout, tmp_path, seed
):
    """ext4 with errors=remount-ro, which takes no remount for writing afterwards: a reboot checks it."""
    print(f"seed {seed}")
    daemon = NodeWithFailingDisk(tmp_path / "node", DISK_MEGABYTES)
    with World(daemon, image_layout) as world:
        cri = world.cri
        before = world.oracle.take()
        pod, config = world.pod()
        alive = cri.run_container(pod, world.main(), config)
        ended = cri.run_container(pod, world.main("ended", "/bin/sh", "-c", "exit 3"), config)
        assert cri.wait_exited(ended).exit_code == 3
        daemon.disk.fail()
        for call in (
            lambda: cri.run_pod(daemon.pod_config(cri)),
            lambda: cri.create(pod, world.main("second"), config),
            lambda: cri.load(image_layout),
            lambda: cri.remove(ended),
            lambda: cri.remove_pod(pod),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                call()
            told = str(caught.value.details())
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE, told
            assert "check the file system of" in told, told
        assert daemon.running
        assert [one.id for one in cri.pods()] == [pod]
        daemon.kill()
        daemon.cut_power()
        print(daemon.disk.check())
        daemon.disk.mount()
        with new_boot_id(tmp_path):
            daemon.start()
            assert {one.state for one in cri.containers()} == {cri.pb.CONTAINER_EXITED}
            world.settled()
            assert cri.status(alive).exit_code != 0
            assert cri.status(ended).exit_code == 3
            cri.remove_pod(pod)
            again, config = world.pod()
            main = cri.run_container(again, world.main(), config)
            assert cri.exec(main, "echo", "alive").stdout == b"alive\n"
            cri.remove_pod(again)
            assert [*daemon.ipam.rglob("10.*")] == []
            daemon.kill()
        world.restarted()
        world.assert_unchanged(before)
