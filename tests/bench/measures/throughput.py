"""Few and many pods from one and several clients at once: per pod, up and down, and call by call."""

from __future__ import annotations

from functools import partial

from tests.bench.bench import Bench, parallel
from tests.bench.results import rotated
from tests.bench.systems import Subject
from tests.bench.timing import Lap, timed
from tests.support.cri_client import Cri

_CLIENTS = 8  # of the measures whose number of pods varies

Laps = dict[str, Lap]


def run(bench: Bench) -> None:
    pods = bench.counts.parallel_pods
    cases = [(pods, clients) for clients in bench.counts.clients]
    cases += [(crowd, min(crowd, _CLIENTS)) for crowd in bench.counts.crowds]
    for number, (crowd, clients) in enumerate(sorted(set(cases))):
        for subject in rotated(bench.subjects(), number):
            _crowd(bench, subject, crowd, clients)


def _crowd(bench: Bench, subject: Subject, pods: int, clients: int) -> None:
    address, image = subject.system.address, bench.images.pod
    with timed(subject.cpu_seconds) as up:
        made = parallel(address, clients, [partial(_up, subject=subject, image=image)] * pods)
    execs = parallel(address, clients, [partial(_exec, container_id=one[1]) for one in made])
    with timed(subject.cpu_seconds) as down:
        removed = parallel(address, clients, [partial(_down, pod_id=one[0]) for one in made])
    case = f"{pods} pod{'s' if pods > 1 else ''}, {clients} client{'s' if clients > 1 else ''}"
    add = bench.results.add
    for row, lap in ((f"pod start, {case}, per pod", up), (f"pod removal, {case}, per pod", down)):
        add(row, subject.label, lap.seconds / pods, cpu_seconds=lap.cpu_seconds / pods)
    for laps in (*(one[2] for one in made), *execs, *removed):
        for verb, lap in laps.items():
            add(f"{verb}, {case}", subject.label, lap.seconds)


def _up(cri: Cri, subject: Subject, image: str) -> tuple[str, str, Laps]:
    config = subject.system.pod_config(cri)
    container = cri.container_config("c0", image)
    with _wall() as run:
        pod_id = cri.run_pod(config, subject.handler)
    with _wall() as create:
        container_id = cri.create(pod_id, container, config)
    with _wall() as start:
        cri.start(container_id)
    return pod_id, container_id, {"RunPodSandbox": run, "CreateContainer": create, "StartContainer": start}


def _exec(cri: Cri, container_id: str) -> Laps:
    with _wall() as lap:
        answer = cri.exec(container_id, "true")
    assert answer.exit_code == 0, answer
    return {"ExecSync": lap}


def _down(cri: Cri, pod_id: str) -> Laps:
    with _wall() as stop:
        cri.stop_pod(pod_id)
    with _wall() as remove:
        cri.runtime.RemovePodSandbox(cri.pb.RemovePodSandboxRequest(pod_sandbox_id=pod_id), timeout=60)
    return {"StopPodSandbox": stop, "RemovePodSandbox": remove}


_wall = partial(timed, lambda: 0.0)  # calls overlap: CPU is counted for all of them together
