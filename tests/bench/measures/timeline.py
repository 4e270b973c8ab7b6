"""What noded pays for the timeline of a pod: the steps of a real start, noted and written once more."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from noded.model.timeline import Call, from_json
from noded.tracing.journal import Journal
from noded.tracing.spans import CURRENT, Position, Record, about, span
from tests.bench.bench import Bench
from tests.bench.timing import timed
from tests.support.cri_client import Cri

_TIMES = 200


def run(bench: Bench) -> None:
    for subject in bench.subjects(one_runtime=True):
        if not subject.label.startswith("noded"):
            continue
        with Cri(subject.system.address) as cri:
            shares = []
            for _ in range(bench.counts.rounds + 1):
                config = subject.system.pod_config(cri)
                with timed(subject.cpu_seconds) as start:
                    pod_id = cri.run_pod(config, subject.handler)
                    container = cri.container_config("main", bench.images.pod)
                    cri.start(cri.create(pod_id, container, config))
                request = cri.admin_pb.TimelineRequest(pod=pod_id)
                (recorded,) = cri.admin.Timeline(request, timeout=60).pods
                calls = [from_json(json.loads(call)) for call in recorded.calls]
                cri.remove_pod(pod_id)
                shares.append((cost_seconds(calls), start.cpu_seconds))
        for cost, whole in shares[1:]:  # the first round fills caches
            bench.results.add("timeline of a pod start", subject.label, cost, cpu_seconds=cost)
            bench.results.add("timeline, of a pod start's CPU", subject.label, 100 * cost / whole, unit="%")


def cost_seconds(calls: Sequence[Call]) -> float:
    """CPU of one recording of these calls, each with as many steps as it has."""
    with tempfile.TemporaryDirectory() as directory:
        journal = Journal(Path(directory))
        before = time.process_time()
        for _ in range(_TIMES):
            parts = []
            for call in calls:
                record = Record(call.method, None, sampled=False)
                token = CURRENT.set(Position(record, 0))
                if call.subject is not None:
                    about(call.subject, call.container)
                for step in call.spans:
                    with span(step.name, **step.attributes):
                        pass
                record.finish(call.error)
                CURRENT.reset(token)
                parts.append(record.news())
            journal.write(part for part in parts if part is not None)
        used = time.process_time() - before
        journal.close()
    return used / _TIMES
