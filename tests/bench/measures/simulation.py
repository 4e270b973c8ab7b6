"""How the daemon's own work grows with the node: up to 500 pods and 1,000 images, on a fake host."""

from __future__ import annotations

import time
from collections.abc import Callable

import trio

from tests.bench.bench import Bench
from tests.bench.results import Results
from tests.bench.simulated import SimulatedNode
from tests.bench.timing import timed

_LAST = 10  # pods whose creation is sampled: those that find all the others there
_CALLS = 20


def run(bench: Bench) -> None:
    for pods in bench.counts.simulated:
        trio.run(_grow, bench, pods)


async def _grow(bench: Bench, pods: int) -> None:
    case = f"{pods} pods, {2 * pods} images (simulated)"
    node = SimulatedNode(bench.directory / f"simulated-{pods}.db")
    await node.open()
    for number in range(pods):
        with timed(time.process_time) as lap:
            await node.create_pod(number)
        if number >= pods - _LAST:
            bench.results.add(
                f"rows of a pod start, {case}", "noded", lap.seconds, cpu_seconds=lap.cpu_seconds
            )
    await node.add_images(0, 2 * pods)
    await node.close()
    for _ in range(3):
        with timed(time.process_time) as lap:
            await node.open()
            await node.load()
            node.list_pods()
            node.list_containers()
        row = f"load and first lists, {case}"
        bench.results.add(row, "noded", lap.seconds, cpu_seconds=lap.cpu_seconds)
        await node.close()
    await node.open()
    await node.load()
    _read(bench.results, node, case, pods)
    await node.close()


def _read(results: Results, node: SimulatedNode, case: str, pods: int) -> None:
    calls: dict[str, Callable[[], bytes]] = {
        "ListPodSandbox": node.list_pods,
        "ListContainers": node.list_containers,
        "ListImages": node.list_images,
        "ContainerStatus": lambda: node.container_status(pods // 2),
        "ListContainerStats": node.list_stats,
    }
    for name, call in calls.items():
        call()  # entries are encoded once, when an object changes
        for _ in range(_CALLS):
            with timed(time.process_time) as lap:
                call()
            results.add(f"{name}, {case}", "noded", lap.seconds, cpu_seconds=lap.cpu_seconds)
