"""The node misbehaves: its clock jumps, its limits are low, everything is killed for memory at once."""

from __future__ import annotations

import resource
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from tests.crash.faults import FaultyDaemon
from tests.crash.figures import publish
from tests.crash.world import World

pytestmark = pytest.mark.root

DAY_SECONDS = 86400
OOM_BYTES = 16 << 20
DESCRIPTORS = 96  # noded itself has some 30
AT_ONCE = 24
IN_TIME_SECONDS = 60.0


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the seconds by which noded's wall clock is wrong."""
    file = tmp_path_factory.mktemp("clock") / "offset"
    file.write_text("0")
    return file


@pytest.fixture(scope="module")
def shared(open_world, clock) -> World:
    return open_world(environment={"NODED_TEST_CLOCK": str(clock)})


def set_clock(clock: Path, seconds: int) -> None:
    """In one step, so that it is never read half-written."""
    new = clock.with_suffix(".new")
    new.write_text(str(seconds))
    new.rename(clock)


@pytest.fixture(autouse=True)
def right_clock(clock: Path) -> Iterator[None]:
    yield
    set_clock(clock, 0)


@pytest.mark.parametrize("days", [-30, 30])
def test_a_jump_of_the_wall_clock_changes_no_deadline_and_no_order(shared, clock, days, seed):
    """kubelet takes the newest attempt by created_at; budgets count on the monotonic clock."""
    print(f"seed {seed}")
    cri = shared.cri
    before = shared.oracle.take()
    config = shared.daemon.pod_config(cri)
    pod = cri.run_pod(config)
    main = cri.container_config("main", shared.main().image.image, ["sleep", "100000"])
    first = cri.run_container(pod, main, config)
    cri.stop(first)
    set_clock(clock, days * DAY_SECONDS)
    main.metadata.attempt = 1
    second = cri.run_container(pod, main, config)
    assert cri.status(second).created_at > cri.status(first).created_at
    started = time.monotonic()
    with pytest.raises(grpc.RpcError) as caught:
        cri.exec(second, "sleep", "100000", seconds=1)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert cri.exec(second, "echo", "alive", seconds=30).stdout == b"alive\n"
    cri.stop(second, grace_seconds=1)
    assert time.monotonic() - started < IN_TIME_SECONDS
    shared.daemon.kill()
    shared.restarted()
    config.metadata.attempt = 1
    cri.stop_pod(pod)
    again = cri.run_pod(config)
    assert cri.pod_status(again).status.created_at > cri.pod_status(pod).status.created_at
    cri.remove_pod(pod)
    cri.remove_pod(again)
    shared.assert_unchanged(before)


def test_all_containers_that_exceed_their_memory_at_once_are_oom_killed(shared, seed, counts):
    many = counts(10, 500)
    print(f"seed {seed}: {many} containers")
    cri = shared.cri
    before = shared.oracle.take()
    pods = [shared.pod("runc"), shared.pod("crun")]
    made = []
    for number in range(many):
        pod, config = pods[number % 2]
        # tail keeps a line whole in memory, and zeroes have no end of line.
        main = shared.main(f"main-{number}", "/bin/sh", "-c", "tail /dev/zero", memory_bytes=OOM_BYTES)
        made.append(cri.create(pod, main, config))
    started = time.monotonic()
    with ThreadPoolExecutor(16) as clients:
        list(clients.map(cri.start, made))
        ends = list(clients.map(lambda one: cri.wait_exited(one, IN_TIME_SECONDS + many), made))
    seconds = time.monotonic() - started
    reasons = Counter(end.reason for end in ends)
    publish(
        f"{many} containers exceed their memory at once",
        f"{reasons['OOMKilled']} of {many} OOMKilled, all started and ended within {seconds:.0f} s",
        seed,
    )
    assert reasons == {"OOMKilled": many}
    for pod, _ in pods:
        cri.remove_pod(pod)
    shared.assert_unchanged(before)


def test_too_few_descriptors_refuse_calls_and_lose_nothing(image_layout, tmp_path, seed):
    """Some of many creates at once are refused; the daemon lives, and all work afterwards."""
    print(f"seed {seed}")
    with World(FaultyDaemon(tmp_path), image_layout) as world:
        cri = world.cri
        before = world.oracle.take()
        limits = resource.prlimit(world.daemon.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(world.daemon.pid, resource.RLIMIT_NOFILE, (DESCRIPTORS, limits[1]))
        configs = [world.daemon.pod_config(cri) for _ in range(AT_ONCE)]
        calls = [
            cri.runtime.RunPodSandbox.future(cri.pb.RunPodSandboxRequest(config=config), timeout=60)
            for config in configs
        ]
        refused = []
        for call in calls:
            try:
                call.result()
            except grpc.RpcError as error:
                refused.append((error.code(), error.details()))
        print(f"{len(refused)} of {AT_ONCE} creates were refused: {refused[:1]}")
        assert {code for code, _ in refused} <= {
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            grpc.StatusCode.UNAVAILABLE,
        }, refused
        assert world.daemon.running
        resource.prlimit(world.daemon.pid, resource.RLIMIT_NOFILE, limits)
        for config in configs:
            cri.remove_pod(cri.run_pod(config))
        world.assert_unchanged(before)
