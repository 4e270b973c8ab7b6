"""The crash matrix: every rung of both ladders, up and down, with a fault before and after it.

The cells are made from the ladders themselves. In each one the fault happens once; then the test
does what kubelet would (ask again, or after a SIGKILL start noded and ask again), and at the end
the host is as it was: no row, mount, namespace, cgroup, process, address or descriptor more.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.crash.faults import ACTS, MOMENTS, Fault, ladders
from tests.crash.matrix import Results
from tests.crash.world import HANDLERS, World
from tests.support.counts import full_counts

pytestmark = [pytest.mark.root, pytest.mark.long]

WAYS = ("up", "down", "rollback")
LISTENER = "io.kubernetes.cri-o.seccompNotifierAction"


def cells() -> list[tuple[str, Fault]]:
    """(way, fault): `down` is on request, `rollback` the same steps after a failed create."""
    return [
        (way, Fault(ladder, rung, "up" if way == "up" else "down", moment, act))
        for ladder, rungs in ladders().items()
        for way in WAYS
        for rung in rungs
        for act in ACTS
        for moment in MOMENTS
    ]


def name_of(cell: tuple[str, Fault]) -> str:
    way, fault = cell
    return f"{fault.ladder}-{fault.rung}-{way}-{fault.act}-{fault.moment}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """All cells under `make prove`, otherwise some that depend on the seed."""
    if "cell" in metafunc.fixturenames:
        chosen = cells() if full_counts() else short_list(int(metafunc.config.getoption("hypothesis_seed")))
        metafunc.parametrize("cell", chosen, ids=name_of)


def short_list(seed: int) -> list[tuple[str, Fault]]:
    """Every rung with every act, and up and down; the other combinations come with other seeds."""
    chosen = []
    for ladder, rungs in ladders().items():
        for rung in rungs:
            rng = random.Random(f"{seed} {ladder} {rung}")
            ways = [*("up", "down"), rng.choice(WAYS)]
            rng.shuffle(ways)
            chosen += [
                (way, Fault(ladder, rung, "up" if way == "up" else "down", rng.choice(MOMENTS), act))
                for way, act in zip(ways, ACTS, strict=True)
            ]
    return chosen


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest) -> Iterator[dict[str, Results]]:
    """What came of each cell, by ladder."""
    seed = int(request.config.getoption("hypothesis_seed"))
    counted = Counter(fault.ladder for _, fault in cells())
    gathered = {name: Results(f"{name} ladder", counted[name], seed) for name in ladders()}
    yield gathered
    for one in gathered.values():
        if one.rows:
            one.write()


@pytest.fixture(scope="module")
def worlds(open_world: Callable[..., World]) -> Callable[[], World]:
    """The current world; a new one after a cell that left something behind."""
    open_ones: list[World] = []

    def current(*, spoilt: bool = False) -> World:
        if spoilt:
            open_ones.clear()
        if not open_ones:
            runtimes = {name: {"type": name, "allowed_annotations": [LISTENER]} for name in HANDLERS}
            open_ones.append(open_world(settings={"runtimes": runtimes}))
        return open_ones[0]

    return current


def test_after_any_fault_the_retry_works_and_nothing_is_left(cell, worlds, results, seed):
    way, fault = cell
    print(f"seed {seed}; armed: {fault}")
    world: World = worlds()
    warm_up(world, fault)
    before = world.oracle.take()

    def spoilt() -> None:
        print(world.daemon.log_text(60))
        worlds(spoilt=True)

    with results[fault.ladder].cell(fault.rung, way, fault.act, fault.moment, spoilt):
        perform = {"sandbox": sandbox_cell, "container": container_cell}[fault.ladder]
        perform(world, way, fault, HANDLERS[hash_of(fault) % 2])
        warm_up(world, fault)
        world.assert_unchanged(before)
        assert not listeners(world)


def hash_of(fault: Fault) -> int:
    """Spreads the handlers evenly, the same in every run."""
    return sum(str(fault).encode())


def sandbox_cell(world: World, way: str, fault: Fault, handler: str) -> None:
    cri = world.cri
    config = world.daemon.pod_config(cri, pid="POD")
    request = cri.pb.RunPodSandboxRequest(config=config, runtime_handler=handler)
    if way != "down":
        before = world.oracle.take()
        hit(world, fault, way, cri.runtime.RunPodSandbox, request)
        if fault.act == "hold" or not cri.pods():  # else it was complete: the client finds it
            world.assert_unchanged(before)
    pod = cri.run_pod(config, handler)
    assert [(one.id, one.state) for one in cri.pods()] == [(pod, cri.pb.SANDBOX_READY)]
    if way == "down":
        # The record is the only rung that stays until the removal.
        if fault.rung == "record":
            cri.stop_pod(pod)
            removal = cri.pb.RemovePodSandboxRequest(pod_sandbox_id=pod)
            hit(world, fault, way, cri.runtime.RemovePodSandbox, removal)
        else:
            stop = cri.pb.StopPodSandboxRequest(pod_sandbox_id=pod)
            hit(world, fault, way, cri.runtime.StopPodSandbox, stop)
    cri.remove_pod(pod)
    assert cri.pods() == []


def container_cell(world: World, way: str, fault: Fault, handler: str) -> None:
    cri = world.cri
    listens = fault.rung == "seccomp"  # else that rung does nothing
    if listens:
        pod, config, main = listening(world, handler)
    else:
        (pod, config), main = world.pod(handler), world.main()
    request = cri.pb.CreateContainerRequest(pod_sandbox_id=pod, config=main, sandbox_config=config)
    if way != "down":
        before = world.oracle.take()
        hit(world, fault, way, cri.runtime.CreateContainer, request)
        if fault.act == "hold" or not cri.containers():
            world.assert_unchanged(before)
    container = cri.create(pod, main, config)
    cri.start(container)
    assert [(one.id, one.state) for one in cri.containers()] == [(container, cri.pb.CONTAINER_RUNNING)]
    assert cri.exec(container, "echo", "alive").stdout == b"alive\n"
    assert len(listeners(world)) == listens
    if way == "down":
        removal = cri.pb.RemoveContainerRequest(container_id=container)
        hit(world, fault, way, cri.runtime.RemoveContainer, removal)
        cri.remove(container)
        assert cri.containers() == []
    cri.remove_pod(pod)
    assert (cri.pods(), cri.containers()) == ([], [])


def warm_up(world: World, fault: Fault) -> None:
    """The first listener of a run of noded makes a directory and a watch, which stay."""
    if fault.rung == "seccomp":
        pod, config, main = listening(world, HANDLERS[0])
        world.cri.create(pod, main, config)
        world.cri.remove_pod(pod)


def listening(world: World, handler: str) -> tuple[str, Any, Any]:
    """A pod, its configuration, and that of a container whose filter has a listener."""
    pod, config = world.pod(handler, annotations={LISTENER: "log"})
    main = world.main()
    main.linux.security_context.seccomp.profile_type = world.cri.pb.SecurityProfile.RuntimeDefault
    return pod, config, main


def listeners(world: World) -> list[str]:
    """The programs that hold seccomp filters of this daemon's containers."""
    needle = os.fsencode(world.daemon.state / "seccomp")
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if needle in path.read_bytes():
                found.append(path.parent.name)
        except OSError:  # ended meanwhile
            continue
    return found


def hit(world: World, fault: Fault, way: str, method: Any, request: Any) -> None:
    """Make the call that meets the fault; it must not succeed. Afterwards noded runs and has settled."""
    faults = [fault]
    if way == "rollback":
        top = ladders()[fault.ladder][-1]
        # What begins the way down: a failure at the top, or the cancel itself.
        faults.insert(0, Fault(fault.ladder, top, "up", "before", "error"))
    with world.daemon.armed(*faults):
        call = method.future(request, timeout=60)
        if fault.act == "hold":
            world.daemon.wait_held()
            call.cancel()
            world.settled()
            world.daemon.release()
        if fault.act == "kill":
            world.daemon.wait_dead()
        with pytest.raises((grpc.RpcError, grpc.FutureCancelledError)):
            call.result()
        if fault.act == "kill":
            world.restarted()
