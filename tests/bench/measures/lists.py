"""Calls that only read, with few and many containers."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from tests.bench.bench import Bench, crowd
from tests.bench.systems import Subject
from tests.bench.timing import timed
from tests.support.cri_client import Cri

_PER_POD = 20


def run(bench: Bench) -> None:
    for containers in sorted({20, bench.counts.list_containers}):
        with ExitStack() as stack:
            subjects = bench.subjects(one_runtime=True)
            pods = {
                one.label: stack.enter_context(
                    crowd(one, bench.images.pod, containers // _PER_POD, containers=_PER_POD)
                )
                for one in subjects
            }
            for block in range(5):
                for one in subjects[block % 2 :] + subjects[: block % 2]:
                    _calls(bench, one, pods[one.label][0].container_id, containers)


def _calls(bench: Bench, subject: Subject, container_id: str, containers: int) -> None:
    with Cri(subject.system.address) as cri:
        pb, runtime = cri.pb, cri.runtime
        calls: dict[str, tuple[Any, Any, int]] = {
            "ListPodSandbox": (runtime.ListPodSandbox, pb.ListPodSandboxRequest(), 1),
            "ListContainers": (runtime.ListContainers, pb.ListContainersRequest(), 1),
            "ContainerStatus": (
                runtime.ContainerStatus,
                pb.ContainerStatusRequest(container_id=container_id),
                1,
            ),
            "ListContainerStats": (runtime.ListContainerStats, pb.ListContainerStatsRequest(), 10),
            "Status": (runtime.Status, pb.StatusRequest(), 1),
        }
        for name, (method, request, dearer) in calls.items():
            count = max(1, bench.counts.list_calls // 5 // dearer)
            method(request, timeout=60)
            laps = []
            used = subject.cpu_seconds()
            for _ in range(count):
                with timed(lambda: 0.0) as lap:
                    method(request, timeout=60)
                laps.append(lap.seconds)
            # One call is too short for the counter: each gets its share of the block.
            share = (subject.cpu_seconds() - used) / count
            for seconds in laps:
                row = f"{name}, {containers} containers"
                bench.results.add(row, subject.label, seconds, cpu_seconds=share)
