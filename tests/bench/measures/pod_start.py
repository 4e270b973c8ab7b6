"""One client: a pod with one container up, and down again, step by step."""

from __future__ import annotations

from tests.bench.bench import Bench
from tests.bench.floor import Floor
from tests.bench.results import Results, rotated
from tests.bench.systems import Subject
from tests.bench.timing import timed
from tests.support.cri_client import Cri

START, STOP = "pod start", "stop + remove"


def run(bench: Bench) -> None:
    clients = {system.name: Cri(system.address) for system in bench.systems()}
    try:
        everyone = [*bench.subjects(), *bench.floors()]
        for number in range(-1, bench.counts.rounds):  # the first round fills caches and does not count
            results = bench.results if number >= 0 else Results()
            for one in rotated(everyone, number):
                if isinstance(one, Floor):
                    _raw(one, results)
                else:
                    _pod(one, clients[one.system.name], bench.images.pod, results)
    finally:
        for cri in clients.values():
            cri.close()


def _pod(subject: Subject, cri: Cri, image: str, results: Results) -> None:
    config = subject.system.pod_config(cri)
    container = cri.container_config("main", image)
    label, cpu = subject.label, subject.cpu_seconds
    with timed(cpu) as start:
        with timed(cpu) as sandbox:
            pod_id = cri.run_pod(config, subject.handler)
        with timed(cpu) as create:
            container_id = cri.create(pod_id, container, config)
        with timed(cpu) as begin:
            cri.start(container_id)
    with timed(cpu) as stop:
        with timed(cpu) as end:
            cri.stop(container_id)
        with timed(cpu) as remove:
            cri.remove(container_id)
        with timed(cpu) as pod_stop:
            cri.stop_pod(pod_id)
        with timed(cpu) as pod_remove:
            cri.runtime.RemovePodSandbox(cri.pb.RemovePodSandboxRequest(pod_sandbox_id=pod_id), timeout=60)
    for row, lap in {
        START: start,
        "RunPodSandbox": sandbox,
        "CreateContainer": create,
        "StartContainer": begin,
        STOP: stop,
        "StopContainer": end,
        "RemoveContainer": remove,
        "StopPodSandbox": pod_stop,
        "RemovePodSandbox": pod_remove,
    }.items():
        results.add(row, label, lap.seconds, cpu_seconds=lap.cpu_seconds)


def _raw(floor: Floor, results: Results) -> None:
    prepared = floor.prepare()
    with timed(floor.cpu_seconds) as start:
        pod = floor.start(prepared)
    results.add(START, floor.label, start.seconds, cpu_seconds=start.cpu_seconds)
    with timed(floor.cpu_seconds) as stop:
        floor.stop(pod)
    results.add(STOP, floor.label, stop.seconds, cpu_seconds=stop.cpu_seconds)
