"""From the start of a daemon to its first correct list of all pods, which kept running, and to readiness."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress

import grpc

from tests.bench.bench import Bench, crowd
from tests.bench.results import rotated
from tests.bench.systems import Endpoint, Subject
from tests.bench.timing import timed
from tests.support.cri_client import Cri

_ROUNDS = 7
_LIMIT_SECONDS = 60.0
_PAUSE_SECONDS = 0.003  # the client must not take the CPU from who starts


def run(bench: Bench) -> None:
    subjects = [one for one in bench.subjects(one_runtime=True) if not isinstance(one.system, Endpoint)]
    pods = max(bench.counts.crowds)
    with ExitStack() as stack:
        for subject in subjects:
            stack.enter_context(crowd(subject, bench.images.pod, pods))
        for number in range(_ROUNDS):
            for subject in rotated(subjects, number):
                if not _restart(bench, subject, pods):
                    # containerd gives up pods whose shim answers too late; that is its result, not the run's.
                    print(f"--- {subject.label} lost pods in restart {number + 1}", file=sys.stderr)
                    subjects = [one for one in subjects if one is not subject]


def _restart(bench: Bench, subject: Subject, pods: int) -> bool:
    """Whether it showed all of its pods again."""
    subject.system.stop()
    used, begun = subject.cpu_seconds(), time.perf_counter()
    found: list[bool] = []

    def listed() -> None:
        found.append(_first_list(subject, pods))
        if found[0]:
            bench.results.add(
                f"restart to first correct list, {pods} pods",
                subject.label,
                time.perf_counter() - begun,
                cpu_seconds=subject.cpu_seconds() - used,
            )

    with timed(subject.cpu_seconds) as lap:
        subject.system.start(listed)
    if found[0]:
        row = f"restart to ready, {pods} pods"
        bench.results.add(row, subject.label, lap.seconds, cpu_seconds=lap.cpu_seconds)
    return found[0]


def _first_list(subject: Subject, pods: int) -> bool:
    """Ask until all pods are ready and all containers run; errors of a server that starts are no answer."""
    if not _comes_true(lambda: _listens(subject)):
        return False
    with Cri(subject.system.address) as cri:

        def correct() -> bool:
            ready = [one for one in cri.pods() if one.state == cri.pb.SANDBOX_READY]
            running = [one for one in cri.containers() if one.state == cri.pb.CONTAINER_RUNNING]
            return len(ready) == len(running) == pods

        return _comes_true(correct)


def _listens(subject: Subject) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.connect(subject.system.address.removeprefix("unix://"))
    return True


def _comes_true(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + _LIMIT_SECONDS
    while time.monotonic() < deadline:
        with suppress(grpc.RpcError, OSError):
            if holds():
                return True
        time.sleep(_PAUSE_SECONDS)
    return False
