"""A node full of containers: a killed daemon tells them all again at once, before it has looked at any."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from tests.crash.faults import FaultyDaemon
from tests.crash.figures import publish
from tests.crash.world import HANDLERS, World
from tests.support.daemon import NodedDaemon

pytestmark = pytest.mark.root

PER_POD = 10
CLIENTS = 4
KILLS = 3
START_SECONDS = 60.0


class PlainDaemon(FaultyDaemon):
    """noded itself: what arms faults would import everything before noded begins to start."""

    module = NodedDaemon.module


@pytest.fixture
def world(image_layout, tmp_path) -> Iterator[World]:
    with World(PlainDaemon(tmp_path), image_layout) as running:
        yield running


def ask(world: World) -> tuple[float, float, dict[str, tuple[int, int]]]:
    """The first list that anybody gets: when it could be asked for, when it came, and what it says."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        with socket.socket(socket.AF_UNIX) as probe, suppress(ConnectionError):
            probe.connect(str(world.daemon.socket))
            break
        assert time.monotonic() < deadline, "noded does not listen"
        select.select([], [], [], 0.005)
    connected = time.monotonic()
    with world.daemon.client() as client:
        request = client.pb.ListContainersRequest()
        found = client.runtime.ListContainers(request, timeout=60, wait_for_ready=True).containers
    return connected, time.monotonic(), {one.id: (one.state, one.created_at) for one in found}


def test_lists_are_served_from_known_state_while_the_node_is_looked_at(world, seed, counts):
    many = counts(10, 250)
    print(f"seed {seed}: {many} containers")
    cri = world.cri
    before = world.oracle.take()
    made: list[str] = []
    pods = []
    with ThreadPoolExecutor(CLIENTS) as clients:
        for first in range(0, many, PER_POD):
            pod, config = world.pod(HANDLERS[first // PER_POD % 2])
            pods.append(pod)
            mains = [world.main(f"main-{first + n}") for n in range(min(PER_POD, many - first))]
            made += clients.map(lambda main, p=pod, c=config: cri.run_container(p, main, c), mains)
    facts = {one.id: (one.state, one.created_at) for one in cri.containers()}
    assert set(facts) == set(made)
    listed = []
    for _ in range(KILLS):
        world.daemon.kill()
        started = time.monotonic()
        with ThreadPoolExecutor(1) as asker:
            first_list = asker.submit(ask, world)
            world.daemon.start()
            ready = time.monotonic() - started
            connected, answered, found = first_list.result()
        listed.append(answered - started)
        world.settled()
        settled = time.monotonic() - started
        assert found == facts
        print(
            f"a client could connect {connected - started:.2f} s after the exec of noded and had the list "
            f"{answered - connected:.2f} s later; READY=1 at {ready:.2f} s, changes at {settled:.2f} s"
        )
    figures = ", ".join(f"{seconds:.2f} s" for seconds in listed)
    publish(
        f"SIGKILL with {many} containers: the first list",
        f"all {many} told as before, after the exec of noded: {figures}",
        seed,
    )
    alive = [cri.exec(one, "echo", "alive").stdout for one in made[:: max(1, many // 10)]]
    assert set(alive) == {b"alive\n"}
    with ThreadPoolExecutor(CLIENTS) as clients:
        list(clients.map(cri.remove_pod, pods))
    world.assert_unchanged(before)
