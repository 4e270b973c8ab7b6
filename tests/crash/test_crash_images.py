"""The crash matrix of images: every effect of pull, unpack, commit and garbage collection.

In each cell the fault happens once, before or after the effect; then the client asks again, or after a
SIGKILL a new noded. The image must then be whole, and once it is removed no byte or row may be left.
"""

from __future__ import annotations

import os
import random
import select
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from tests.crash.effects import EFFECTS, Effect
from tests.crash.faults import ACTS, MOMENTS, Fault
from tests.crash.matrix import Results
from tests.crash.world import SETTLE_SECONDS, World
from tests.support import images
from tests.support.counts import full_counts
from tests.support.oracle import describe_difference
from tests.support.registry import Registry

pytestmark = [pytest.mark.root, pytest.mark.long]

PARALLEL_LAYERS = 2
ORDERLY = "image store in order"  # logged by each start, when it has cleared what the last run left
ORDERLY_SECONDS = 30.0


@dataclass(frozen=True)
class Cell:
    """One fault at one end of one effect, in one call."""

    effect: Effect
    way: str
    act: str
    moment: str

    def __str__(self) -> str:
        return f"{self.effect.stage}-{self.effect.name}-{self.way}-{self.act}-{self.moment}"

    @property
    def fault(self) -> Fault:
        return Fault(self.effect.stage, self.effect.name, "", self.moment, self.act)


def cells() -> list[Cell]:
    """Every one. A start has no client that could cancel."""
    return [
        Cell(effect, way, act, moment)
        for effect in EFFECTS
        for way in effect.ways
        for act in ACTS
        if (way, act) != ("start", "hold")
        for moment in MOMENTS
    ]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """All cells under `make prove`, otherwise one of each effect, by the seed."""
    if "cell" in metafunc.fixturenames:
        chosen = cells() if full_counts() else short_list(int(metafunc.config.getoption("hypothesis_seed")))
        metafunc.parametrize("cell", chosen, ids=str)


def short_list(seed: int) -> list[Cell]:
    """One cell of each effect."""
    found = cells()
    return [
        random.Random(f"{seed} {effect.point}").choice([one for one in found if one.effect is effect])
        for effect in EFFECTS
    ]


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest) -> Iterator[Results]:
    seed = int(request.config.getoption("hypothesis_seed"))
    gathered = Results("pull, unpack, commit and collection of images", len(cells()), seed)
    yield gathered
    gathered.write()


class Node:
    """A world that pulls from a registry."""

    def __init__(self, world: World, reference: str) -> None:
        self.world = world
        self.reference = reference
        self._log_at = 0

    def pull_request(self) -> tuple[Any, Any]:
        cri = self.world.cri
        spec = cri.pb.ImageSpec(image=self.reference)
        return cri.image.PullImage, cri.pb.PullImageRequest(image=spec)

    def remove_request(self) -> tuple[Any, Any]:
        cri = self.world.cri
        spec = cri.pb.ImageSpec(image=self.reference)
        return cri.image.RemoveImage, cri.pb.RemoveImageRequest(image=spec)

    def call(self, way: str) -> None:
        method, request = {"pull": self.pull_request, "remove": self.remove_request}[way]()
        method(request, timeout=60)

    @property
    def listed(self) -> bool:
        return any(self.reference in image.repo_tags for image in self.world.cri.images())

    def verify(self) -> None:
        """The image is there, and each of its bytes is right."""
        cri = self.world.cri
        request = cri.admin_pb.VerifyImagesRequest(deep=True, references=[self.reference])
        (one,) = cri.admin.VerifyImages(request, timeout=60).images
        assert list(one.problems) == []

    def restarted(self) -> None:
        """Start the dead daemon, and wait until it has looked through its store."""
        daemon = self.world.daemon
        daemon.wait_dead()
        with daemon.log.open("rb") as log:
            log.seek(0, os.SEEK_END)
            daemon.start()
            deadline = time.monotonic() + ORDERLY_SECONDS
            found = b""
            while time.monotonic() < deadline:
                found += log.read()
                if ORDERLY.encode() in found or not daemon.running:
                    return
                select.select([], [], [], 0.01)
        raise AssertionError(f"not within {ORDERLY_SECONDS} s: {ORDERLY}")


@pytest.fixture(scope="module")
def nodes(open_world: Callable[..., World], registry: Registry) -> Callable[..., Node]:
    """The current node; a new one after a cell that left something behind."""
    noise = random.Random(1)
    layers = [
        images.tar([images.Entry(f"{name}/"), images.Entry(f"{name}/data", noise.randbytes(100_000))])
        for name in ("below", "above")
    ]
    reference = registry.push(images.build(layers), "crash/image", "1")
    open_ones: list[Node] = []

    def current(*, spoilt: bool = False) -> Node:
        if spoilt:
            open_ones.clear()
        if not open_ones:
            world = open_world(insecure=[registry.host])
            open_ones.append(Node(world, reference))
            open_ones[0].call("pull")  # starts the helper that unpacks, which stays
            open_ones[0].call("remove")
        return open_ones[0]

    return current


def test_after_any_fault_the_retry_works_and_no_byte_is_left(cell: Cell, nodes, results, seed):
    print(f"seed {seed}; armed: {cell.fault}")
    node: Node = nodes()
    before = node.world.oracle.take()

    def spoilt() -> None:
        print(node.world.daemon.log_text(60))
        nodes(spoilt=True)

    with results.cell(f"{cell.effect.stage}: {cell.effect.name}", cell.way, cell.act, cell.moment, spoilt):
        {"pull": pull_cell, "remove": remove_cell, "start": start_cell}[cell.way](node, cell, before)
        node.world.assert_unchanged(before)


def pull_cell(node: Node, cell: Cell, before: Any) -> None:
    hit(node, cell)
    # A cancel that comes too late lets the pull end: then the image is whole, else nothing is left.
    deadline = time.monotonic() + SETTLE_SECONDS
    while not node.listed and describe_difference(before, node.world.oracle.take()):
        assert time.monotonic() < deadline, describe_difference(before, node.world.oracle.take())
    if node.listed:
        node.verify()
    node.call("pull")
    node.verify()
    node.call("remove")


def remove_cell(node: Node, cell: Cell, before: Any) -> None:
    node.call("pull")
    hit(node, cell)
    if cell.act != "hold":  # else it may just be going
        if not node.listed:
            node.world.assert_unchanged(before)
            node.call("pull")
        node.verify()
    node.call("remove")


def start_cell(node: Node, cell: Cell, before: Any) -> None:
    """A daemon that was killed in the middle of a pull left something; the next one fails to clear it."""
    daemon = node.world.daemon
    method, request = node.pull_request()
    with daemon.armed(Fault("commit", "rename", "", "before", "kill")):
        call = method.future(request, timeout=60)
        daemon.wait_dead()
        with pytest.raises(grpc.RpcError):
            call.result()
    with daemon.armed(cell.fault):
        if cell.act == "kill":
            daemon.start()
            daemon.wait_dead()
            node.restarted()
        else:
            node.restarted()
    assert not node.listed
    node.world.settled()


def hit(node: Node, cell: Cell) -> None:
    """Make the call that meets the fault. Afterwards noded runs and has settled."""
    daemon = node.world.daemon
    method, request = node.pull_request() if cell.way == "pull" else node.remove_request()
    with daemon.armed(cell.fault):
        call = method.future(request, timeout=60)
        if cell.act == "hold":
            daemon.wait_held()
            call.cancel()
            node.world.settled()
            daemon.release()
        if cell.act == "kill":
            daemon.wait_dead()
        refusal = None
        try:
            call.result()
            assert cell.act == "error", "a call that was given up succeeded"
        except grpc.FutureCancelledError:
            assert cell.act == "hold"
        except grpc.RpcError as error:
            refusal = error
        assert refusal is None or refusal.code() is not grpc.StatusCode.INTERNAL, refusal.details()
        if cell.act == "kill":
            node.restarted()
