"""A volume whose file system does not answer: one operation however often kubelet asks, nobody else waits."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from tests.crash.figures import list_often, publish
from tests.crash.hung_fs import HungFilesystem
from tests.crash.world import World

pytestmark = pytest.mark.root

RETRIES = 50
RETRY_SECONDS = 1.0
MANY = 45  # trio gives 40 threads to everything together


@pytest.fixture(scope="module")
def world(open_world: Callable[..., World]) -> World:
    """One for all tests of this file."""
    return open_world()


@pytest.fixture
def hung(tmp_path: Path) -> Iterator[HungFilesystem]:
    with HungFilesystem(tmp_path / "volume") as filesystem:
        yield filesystem


def test_fifty_retries_of_a_create_on_a_hung_volume_give_one_container(world: World, hung, seed, counts):
    print(f"seed {seed}")
    cri = world.cri
    before = world.oracle.take()
    pod, config = world.pod()
    volume = hung.target / "data"
    main = world.main(mounts=[(volume, "/data")])
    quiet = list_often(world, counts(200, 2000))
    hung.hold()

    def ask(_: int) -> grpc.StatusCode:
        with pytest.raises(grpc.RpcError) as caught:
            cri.create(pod, main, config, timeout=RETRY_SECONDS)
        code: grpc.StatusCode = caught.value.code()
        return code

    with ThreadPoolExecutor(10) as kubelets:
        answers = kubelets.map(ask, range(RETRIES))
        hung.wait_held()
        waits = list_often(world, counts(200, 2000))
        other, other_config = world.pod("crun")
        container = cri.run_container(other, world.main(), other_config)
        assert cri.exec(container, "echo", "alive").stdout == b"alive\n"
        cri.remove_pod(other)
        assert set(answers) == {grpc.StatusCode.DEADLINE_EXCEEDED}
    log = world.daemon.log_text(5000)
    assert f"at spec: stat({volume})" in log
    assert cri.containers() == []
    hung.release()
    made = cri.create(pod, main, config)
    assert [one.id for one in cri.containers()] == [made]
    publish(
        f"A volume's stat hangs, {RETRIES} retries of the same CreateContainer",
        f"1 container when it comes back; p99 meanwhile {waits}, quiet {quiet}",
        seed,
    )
    waits.assert_kept(quiet)
    assert len(set(created(log + world.daemon.log_text(5000)))) <= 2  # the other pod's, and this one
    cri.start(made)
    assert json.loads(cri.verbose_status(made).info["info"])["pid"] > 0
    cri.remove_pod(pod)
    world.assert_unchanged(before)


def created(log: str) -> list[str]:
    return [line.split("id=")[1][:64] for line in log.splitlines() if "container created" in line]


def test_many_hung_volumes_do_not_stop_other_pods(world: World, hung, seed):
    print(f"seed {seed}")
    cri = world.cri
    before = world.oracle.take()
    pod, config = world.pod()
    hung.hold()
    calls = []
    for number in range(MANY):
        main = world.main(f"main-{number}", mounts=[(hung.target / f"data-{number}", "/data")])
        request = cri.pb.CreateContainerRequest(pod_sandbox_id=pod, config=main, sandbox_config=config)
        calls.append(cri.runtime.CreateContainer.future(request, timeout=120))
    hung.wait_held()
    other, other_config = world.pod("crun")
    cri.run_container(other, world.main(), other_config)
    cri.remove_pod(other)
    hung.release()
    for call in calls:
        call.result()
    assert len(cri.containers()) == MANY
    cri.remove_pod(pod)
    world.assert_unchanged(before)


def test_a_pod_with_a_create_on_a_hung_volume_can_be_removed(world: World, hung, seed):
    print(f"seed {seed}")
    cri = world.cri
    before = world.oracle.take()
    pod, config = world.pod()
    hung.hold()
    main = world.main(mounts=[(hung.target / "data", "/data")])
    request = cri.pb.CreateContainerRequest(pod_sandbox_id=pod, config=main, sandbox_config=config)
    call = cri.runtime.CreateContainer.future(request, timeout=60)
    hung.wait_held()
    cri.remove_pod(pod)
    with pytest.raises(grpc.RpcError):
        call.result()
    world.assert_unchanged(before)
