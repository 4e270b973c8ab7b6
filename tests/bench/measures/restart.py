"""From the start of a daemon to its first correct list of all pods, which kept running."""

from __future__ import annotations

import time

import grpc

from tests.bench.bench import Bench, crowd
from tests.bench.systems import Endpoint, Subject
from tests.bench.timing import timed
from tests.support.cri_client import Cri

_ROUNDS = 5
_LIMIT_SECONDS = 120.0


def run(bench: Bench) -> None:
    subjects = [one for one in bench.subjects(one_runtime=True) if not isinstance(one.system, Endpoint)]
    pods = max(bench.counts.crowds)
    for subject in subjects:
        with crowd(subject, bench.images.pod, pods):
            for _ in range(_ROUNDS):
                subject.system.stop()
                with timed(subject.cpu_seconds) as lap:
                    subject.system.start()
                    _first_list(subject, pods)
                row = f"restart to first correct list, {pods} pods"
                bench.results.add(row, subject.label, lap.seconds, cpu_seconds=lap.cpu_seconds)


def _first_list(subject: Subject, pods: int) -> None:
    deadline = time.monotonic() + _LIMIT_SECONDS
    with Cri(subject.system.address) as cri:
        while time.monotonic() < deadline:
            try:
                ready = [one for one in cri.pods() if one.state == cri.pb.SANDBOX_READY]
                running = [one for one in cri.containers() if one.state == cri.pb.CONTAINER_RUNNING]
            except grpc.RpcError:
                ready = running = []
            if len(ready) == len(running) == pods:
                return
    raise AssertionError(f"{subject.label} does not list {pods} pods after its restart")
