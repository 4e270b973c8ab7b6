"""ExecSync of `true` in a running container, and the runtime's own exec."""

from __future__ import annotations

from tests.bench.bench import Bench, Pod
from tests.bench.floor import Floor
from tests.bench.results import Results, rotated
from tests.bench.timing import timed
from tests.support.cri_client import Cri

ROW = "ExecSync true"


def run(bench: Bench) -> None:
    clients = {system.name: Cri(system.address) for system in bench.systems()}
    pods = {one.label: Pod.start(clients[one.system.name], one, bench.images.pod) for one in bench.subjects()}
    raw = {floor.label: floor.start(floor.prepare()) for floor in bench.floors()}
    try:
        everyone = [*bench.subjects(), *bench.floors()]
        for number in range(-1, bench.counts.execs):
            results = bench.results if number >= 0 else Results()
            for one in rotated(everyone, number):
                with timed(one.cpu_seconds) as lap:
                    if isinstance(one, Floor):
                        one.exec_true(raw[one.label])
                    else:
                        answer = clients[one.system.name].exec(pods[one.label].container_id, "true")
                        assert answer.exit_code == 0, answer
                results.add(ROW, one.label, lap.seconds, cpu_seconds=lap.cpu_seconds)
    finally:
        for floor in bench.floors():
            floor.stop(raw[floor.label])
        for subject in bench.subjects():
            clients[subject.system.name].remove_pod(pods[subject.label].id)
        for cri in clients.values():
            cri.close()
