"""One run: the systems, their clients, the registry, and the interleaving of rounds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.floor import Floor
from tests.bench.images import Images, push_small
from tests.bench.results import Results
from tests.bench.systems import CONTAINERD, Containerd, Endpoint, Noded, Subject, System
from tests.support.cri_client import Cri
from tests.support.disks import loop_mounted
from tests.support.registry import Registry

Factory = Callable[[Path], System]


@dataclass(frozen=True)
class Counts:
    """How much is measured. All are numbers of repetitions or of objects."""

    rounds: int
    execs: int
    parallel_pods: int
    clients: tuple[int, ...]
    crowds: tuple[int, ...]  # pods of the measures that need many
    list_containers: int
    list_calls: int
    idle_seconds: float
    pull_entries: int
    pull_bytes: int
    pull_rounds: int
    simulated: tuple[int, ...]


QUICK = Counts(5, 10, 10, (1, 8), (10,), 20, 50, 5.0, 2000, 40 << 20, 1, (20, 100))
FULL = Counts(
    30, 60, 50, (1, 4, 8, 16), (1, 10, 50, 100), 500, 300, 60.0, 26_000, 540 << 20, 3, (20, 100, 500)
)


class Bench:
    """What a measure works with."""

    def __init__(
        self,
        directory: Path,
        counts: Counts,
        registry: Registry,
        endpoints: Sequence[str],
        without: frozenset[str],
        stack: ExitStack,
    ) -> None:
        self.directory = directory
        self.counts = counts
        self.registry = registry
        self.images: Images = push_small(registry)
        self.results = Results()
        self._stack = stack
        kinds: dict[str, type[Noded] | type[Containerd]] = {"noded": Noded}
        if shutil.which(CONTAINERD):
            kinds[CONTAINERD] = Containerd
        self.factories: dict[str, Factory] = {
            name: lambda path, kind=kind: kind(path, registry.host, self.images.sandbox)
            for name, kind in kinds.items()
            if name not in without
        }
        self._endpoints = endpoints
        self._systems: list[System] = []
        self._floors: dict[str, Floor] = {}

    def systems(self) -> list[System]:
        """All systems, running, with the pod image pulled; started at the first call."""
        if not self._systems:
            for factory in self.factories.values():
                self._systems.append(self._stack.enter_context(self.running(factory, self.directory)))
            for argument in self._endpoints:
                self._systems.append(Endpoint(argument, self.directory))
            for system in self._systems:
                with Cri(system.address) as cri:
                    cri.pull(self.images.pod)
        return self._systems

    @contextmanager
    def running(self, factory: Factory, directory: Path) -> Iterator[System]:
        """A system of its own, with an empty store."""
        system = factory(directory)
        try:
            system.start()
            yield system
        finally:
            system.close()

    def subjects(self, *, one_runtime: bool = False) -> list[Subject]:
        """Every system with every runtime, or with runc alone."""
        return [
            Subject(system, runtime)
            for system in self.systems()
            for runtime in system.handlers
            if not one_runtime or runtime == next(iter(system.handlers))
        ]

    def floors(self) -> list[Floor]:
        """One for each runtime that noded has."""
        if not self._floors:
            for subject in self.subjects():
                if subject.system.name == "noded":
                    floor = Floor(self.directory, subject.runtime, self._spec(subject))
                    self._floors[subject.runtime] = floor
                    self._stack.callback(floor.close)
        return list(self._floors.values())

    def _spec(self, subject: Subject) -> dict[str, Any]:
        assert isinstance(subject.system, Noded)
        with Cri(subject.system.address) as cri:
            pod = Pod.start(cri, subject, self.images.pod)
            path = subject.system.daemon.state / "containers" / pod.container_id / "config.json"
            spec: dict[str, Any] = json.loads(path.read_text())
            cri.remove_pod(pod.id)
        return spec


@dataclass(frozen=True)
class Pod:
    """A pod with one running container."""

    id: str
    container_id: str

    @classmethod
    def start(cls, cri: Cri, subject: Subject, image: str, containers: int = 1) -> Pod:
        """Run a pod with sleeping containers."""
        config = subject.system.pod_config(cri)
        pod_id = cri.run_pod(config, subject.handler)
        container_id = ""
        for number in range(containers):
            container_id = cri.run_container(pod_id, cri.container_config(f"c{number}", image), config)
        return cls(pod_id, container_id)


def parallel(address: str, clients: int, jobs: Sequence[Callable[[Cri], Any]]) -> list[Any]:
    """Run jobs on `clients` connections, each in a thread; return their results in order."""
    connections = [Cri(address) for _ in range(clients)]
    free = list(connections)
    try:
        with ThreadPoolExecutor(clients) as pool:

            def run(job: Callable[[Cri], Any]) -> Any:
                cri = free.pop()  # as many connections as threads: there always is one
                try:
                    return job(cri)
                finally:
                    free.append(cri)

            return list(pool.map(run, jobs))
    finally:
        for cri in connections:
            cri.close()


@contextmanager
def crowd(subject: Subject, image: str, pods: int, containers: int = 1) -> Iterator[list[Pod]]:
    """Many pods at once, removed at the end."""
    jobs = [lambda cri: Pod.start(cri, subject, image, containers)] * pods
    try:
        yield parallel(subject.system.address, 8, jobs)
    finally:
        with Cri(subject.system.address) as cri:
            ids = [pod.id for pod in cri.pods()]
        parallel(subject.system.address, 8, [lambda cri, one=one: cri.remove_pod(one) for one in ids])


@contextmanager
def fresh_filesystem(directory: Path, size_bytes: int) -> Iterator[Path]:
    """An ext4 of its own on a loop device: a used one makes the next run pay for its deletions."""
    mkfs = ("mkfs.ext4", "-E", "lazy_itable_init=0")
    with loop_mounted(directory / "fs.img", directory / "fs", size_bytes, *mkfs) as mount:
        yield mount
