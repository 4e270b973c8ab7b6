"""The database fails at every single commit of every verb: told, asked again, and nothing is left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest

from tests.crash.faults import MOMENTS, Fault
from tests.crash.world import HANDLERS, World

pytestmark = pytest.mark.root

ROWS = ("sandbox-rows", "container-rows")
METHODS = ("insert", "update", "delete")
VERBS = ("run_pod", "create", "start", "stop", "remove", "stop_pod", "remove_pod")
MOST_COMMITS = 12  # of one kind in one verb


@pytest.fixture(scope="module")
def world(open_world) -> World:
    return open_world()


@pytest.mark.rotated(2)
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_whose_commits_fail_one_by_one_works_when_asked_again(world, verb, moment, seed):
    print(f"seed {seed}")
    before = world.oracle.take()
    failed = 0
    for rows in ROWS:
        for method in METHODS:
            for skipping in range(MOST_COMMITS):
                fault = Fault(rows, method, "commit", moment, "error")
                if not fails(world, verb, fault, skipping, HANDLERS[skipping % 2]):
                    break
                failed += 1
            else:
                raise AssertionError(f"{verb} commits more than {MOST_COMMITS} times")
    world.assert_unchanged(before)
    print(f"{failed} commits of {verb} failed")
    assert failed


def fails(world: World, verb: str, fault: Fault, skipping: int, handler: str) -> bool:
    """Do the verb with the fault, then again; tell whether there was such a commit."""
    cri = world.cri
    config = world.daemon.pod_config(cri)
    main = cri.container_config("main", world.main().image.image, ["sleep", "100000"])
    held: dict[str, str] = {}
    acts = {
        "run_pod": lambda: held.update(pod=cri.run_pod(config, handler)),
        "create": lambda: held.update(container=cri.create(held["pod"], main, config)),
        "start": lambda: cri.start(held["container"]),
        "stop": lambda: cri.stop(held["container"]),
        "remove": lambda: cri.remove(held["container"]),
        "stop_pod": lambda: cri.stop_pod(held["pod"]),
        "remove_pod": lambda: cri.remove_pod(held["pod"]),
    }
    needed = ("run_pod", "create", "start")
    for step in needed[: needed.index(verb)] if verb in needed else needed:
        acts[step]()
    world.daemon.arm(fault, skipping=skipping)
    refusal = attempt(acts[verb])
    if refusal is not None:
        assert refusal.code() is grpc.StatusCode.UNAVAILABLE, f"{fault}: {refusal.details()}"
        refusal = attempt(acts[verb])
        if refusal is not None:  # a start may have happened after all: kubelet looks
            state = cri.status(held["container"]).state if verb == "start" else None
            assert state == cri.pb.CONTAINER_RUNNING, f"{verb} again: {refusal.details()}"
    happened = world.daemon.disarm(fault)
    cri.remove_pod(held["pod"])
    assert (cri.pods(), cri.containers()) == ([], [])
    return happened


def attempt(act: Callable[[], None]) -> Any:
    """Do it; the error if it was refused."""
    try:
        act()
    except grpc.RpcError as error:
        return error
    return None
