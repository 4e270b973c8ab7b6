"""From the start of a daemon to its first correct list of all pods, which kept running, and to readiness."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import ExitStack

import grpc

from tests.bench.bench import Bench, crowd
from tests.bench.results import rotated
from tests.bench.systems import Endpoint, Subject
from tests.bench.timing import timed
from tests.support.cri_client import Cri

_ROUNDS = 7
_LIMIT_SECONDS = 120.0
_PAUSE_SECONDS = 0.001


def run(bench: Bench) -> None:
    subjects = [one for one in bench.subjects(one_runtime=True) if not isinstance(one.system, Endpoint)]
    pods = max(bench.counts.crowds)
    with ExitStack() as stack:
        for subject in subjects:
            stack.enter_context(crowd(subject, bench.images.pod, pods))
        for number in range(_ROUNDS):
            for subject in rotated(subjects, number):
                _restart(bench, subject, pods)


def _restart(bench: Bench, subject: Subject, pods: int) -> None:
    subject.system.stop()
    used, begun = subject.cpu_seconds(), time.perf_counter()

    def listed() -> None:
        _first_list(subject, pods)
        bench.results.add(
            f"restart to first correct list, {pods} pods",
            subject.label,
            time.perf_counter() - begun,
            cpu_seconds=subject.cpu_seconds() - used,
        )

    with timed(subject.cpu_seconds) as lap:
        subject.system.start(listed)
    row = f"restart to ready, {pods} pods"
    bench.results.add(row, subject.label, lap.seconds, cpu_seconds=lap.cpu_seconds)


def _first_list(subject: Subject, pods: int) -> None:
    """Ask until all pods are ready and all containers run; errors of a server that starts are no answer."""
    _until(lambda: _listens(subject), f"{subject.label} does not listen")
    with Cri(subject.system.address) as cri:

        def correct() -> bool:
            ready = [one for one in cri.pods() if one.state == cri.pb.SANDBOX_READY]
            running = [one for one in cri.containers() if one.state == cri.pb.CONTAINER_RUNNING]
            return len(ready) == len(running) == pods

        _until(correct, f"{subject.label} does not list {pods} pods after its restart")


def _listens(subject: Subject) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.connect(subject.system.address.removeprefix("unix://"))
    return True


def _until(holds: Callable[[], bool], problem: str) -> None:
    deadline = time.monotonic() + _LIMIT_SECONDS
    while time.monotonic() < deadline:
        try:
            if holds():
                return
        except (grpc.RpcError, OSError):
            pass
        time.sleep(_PAUSE_SECONDS)
    raise AssertionError(problem)
