"""Many pods from several clients at once: seconds per pod, up and down."""

from __future__ import annotations

from tests.bench.bench import Bench, Pod, parallel
from tests.bench.results import rotated
from tests.bench.timing import timed


def run(bench: Bench) -> None:
    image = bench.images.pod
    pods = bench.counts.parallel_pods
    for number, clients in enumerate(bench.counts.clients):
        for subject in rotated(bench.subjects(), number):
            address = subject.system.address
            with timed(subject.cpu_seconds) as up:
                made = parallel(
                    address, clients, [lambda cri, one=subject: Pod.start(cri, one, image)] * pods
                )
            with timed(subject.cpu_seconds) as down:
                parallel(address, clients, [lambda cri, one=one: cri.remove_pod(one.id) for one in made])
            case = f"{pods} pods, {clients} client{'s' if clients > 1 else ''}"
            for row, lap in ((f"pod start, {case}, per pod", up), (f"pod removal, {case}, per pod", down)):
                bench.results.add(row, subject.label, lap.seconds / pods, cpu_seconds=lap.cpu_seconds / pods)
