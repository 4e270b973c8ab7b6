"""SIGKILL of noded at random moments, under load: live pods do not notice, and nothing is left."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.crash.world import HANDLERS, IMAGE, World
from tests.support.counts import full_counts

pytestmark = [pytest.mark.root, pytest.mark.long]

BATCH = 50
CLIENTS = 3
CALL_SECONDS = 60.0


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A thousand kills under `make prove`, in parts of some minutes each; otherwise ten."""
    kills, size = (1000, 100) if full_counts() else (10, 10)
    parts = [range(first, first + size) for first in range(0, kills, size)]
    metafunc.parametrize("part", parts, ids=[f"{part.start}-{part.stop - 1}" for part in parts])


def test_live_pods_survive_kills_at_random_moments(world, part, seed, counts):
    live = counts(6, 20)
    print(f"seed {seed}: kills {part.start} to {part.stop - 1}, {live} live pods")
    before = world.oracle.take()
    ids = start_live_pods(world, live)
    facts = facts_of(world, ids)
    alone, held = world.oracle.take(), stored_bytes(world)
    for first in range(part.start, part.stop, BATCH):
        batch = range(first, min(first + BATCH, part.stop))
        under_load(world, lambda batch=batch: kill_often(world, batch, seed, ids, facts))
        world.settled()
        assert {pod.id for pod in world.cri.pods()} == ids
        assert facts_of(world, ids) == facts
        world.assert_unchanged(alone)
        assert stored_bytes(world) == held
        assert sorted(addresses(world)) == sorted(world.cri.pod_ip(pod) for pod in ids)
    for container in world.cri.containers():
        if container.state == world.cri.pb.CONTAINER_RUNNING:
            assert world.cri.exec(container.id, "echo", "alive").stdout == b"alive\n"
    world.cri.remove_all_pods()
    world.assert_unchanged(before)


def start_live_pods(world: World, count: int) -> set[str]:
    """Pods on both handlers, sharing PIDs or not, with a running and an ended container each."""
    ids = set()
    for number in range(count):
        pid = "POD" if number % 2 else "CONTAINER"
        config = world.daemon.pod_config(world.cri, pid=pid)
        pod = world.cri.run_pod(config, HANDLERS[number // 2 % 2])
        main = world.cri.container_config("main", IMAGE, ["sleep", "100000"], pid=pid)
        world.cri.run_container(pod, main, config)
        command = ["/bin/sh", "-c", f"exit {number + 1}"]
        ended = world.cri.container_config("ended", IMAGE, command, pid=pid)
        status = world.cri.wait_exited(world.cri.run_container(pod, ended, config))
        assert status.exit_code == number + 1
        ids.add(pod)
    return ids


def facts_of(world: World, ids: set[str]) -> dict[str, Any]:
    """What must not change: states, times, addresses, exit codes, and the very processes."""
    cri = world.cri
    pods = {pod.id: (pod.state, pod.created_at, cri.pod_ip(pod.id)) for pod in cri.pods() if pod.id in ids}
    containers = {}
    for one in cri.containers():
        if one.pod_sandbox_id in ids:
            answer = cri.verbose_status(one.id)
            status = answer.status
            times = (one.created_at, status.started_at, status.finished_at)
            process = None
            if one.state == cri.pb.CONTAINER_RUNNING:
                pid = json.loads(answer.info["info"])["pid"]
                stat = Path(f"/proc/{pid}/stat").read_text()
                process = (pid, stat[stat.rindex(")") + 2 :].split()[19])  # with its start time
            containers[one.id] = (one.state, times, status.exit_code, status.reason, process)
    return {**pods, **containers}


def stored_bytes(world: World) -> dict[str, int]:
    """Size of every file that noded keeps, but its pid, journal, and database, whose size follows no row."""
    found = {}
    for base in (world.daemon.root, world.daemon.state):
        for parent, _, files in os.walk(base):
            for path in (Path(parent) / name for name in files):
                own = path.name.startswith(("noded.db", "noded.lock")) or path.parent.name == "timelines"
                if not own and path.is_file():
                    found[str(path)] = path.stat().st_size
    return found


def addresses(world: World) -> list[str]:
    """The names of host-local's address files."""
    return [path.name for path in world.daemon.ipam.rglob("10.*") if path.is_file()]


def kill_often(world: World, batch: range, seed: int, ids: set[str], facts: dict[str, Any]) -> None:
    waited = started = looked = 0.0
    for number in batch:
        moment = random.Random(f"{seed} {number}").uniform(0.0, 0.8)
        threading.Event().wait(moment)  # not for something to happen: this is the random moment
        killed = time.monotonic()
        world.daemon.kill()
        world.daemon.start()
        ready = time.monotonic()
        # At once, while the daemon still looks at the node.
        assert facts_of(world, ids) == facts, f"after kill {number}"
        waited, started, looked = waited + moment, started + ready - killed, looked + time.monotonic() - ready
    figures = (f"{seconds / len(batch):.2f} s" for seconds in (waited, started, looked))
    print("a round: {} until the kill, {} until noded is ready, {} for the facts".format(*figures))


def under_load(world: World, work: Callable[[], None]) -> None:
    """Do `work` while clients make and remove pods; each of their calls must succeed in the end."""
    over, failures = threading.Event(), []

    def client(number: int) -> None:
        with world.daemon.client() as cri:
            life = 0
            while not over.is_set() and not failures:
                try:
                    one_pod_life(world, cri, HANDLERS[(number + life) % 2])
                except BaseException as error:
                    failures.append(error)
                    raise
                life += 1

    clients = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    for thread in clients:
        thread.start()
    try:
        work()
    finally:
        over.set()
        for thread in clients:
            thread.join()
    assert not failures, failures


def one_pod_life(world: World, cri: Any, handler: str) -> None:
    """What kubelet does: every call is repeated while noded is away."""
    pb = cri.pb

    def call(method: Any, request: Any) -> Any:
        while True:
            try:
                return method(request, timeout=CALL_SECONDS, wait_for_ready=True)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise

    config = world.daemon.pod_config(cri)
    run = pb.RunPodSandboxRequest(config=config, runtime_handler=handler)
    pod = call(cri.runtime.RunPodSandbox, run).pod_sandbox_id
    main = cri.container_config("main", IMAGE, ["sleep", "1000"])
    create = pb.CreateContainerRequest(pod_sandbox_id=pod, config=main, sandbox_config=config)
    container = call(cri.runtime.CreateContainer, create).container_id
    try:
        call(cri.runtime.StartContainer, pb.StartContainerRequest(container_id=container))
    except grpc.RpcError:  # started, but the answer was lost: a second start is refused
        status = call(cri.runtime.ContainerStatus, pb.ContainerStatusRequest(container_id=container)).status
        assert status.state == pb.CONTAINER_RUNNING
    call(cri.runtime.StopPodSandbox, pb.StopPodSandboxRequest(pod_sandbox_id=pod))
    call(cri.runtime.RemovePodSandbox, pb.RemovePodSandboxRequest(pod_sandbox_id=pod))
