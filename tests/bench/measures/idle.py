"""CPU of everything while nobody asks for anything, with pods running."""

from __future__ import annotations

import time
from contextlib import ExitStack

from tests.bench.bench import Bench, crowd

_SETTLE_SECONDS = 3.0


def run(bench: Bench) -> None:
    seconds = bench.counts.idle_seconds
    for pods in sorted({min(50, max(bench.counts.crowds))}):
        with ExitStack() as stack:
            subjects = bench.subjects(one_runtime=True)
            for subject in subjects:
                stack.enter_context(crowd(subject, bench.images.pod, pods))
            time.sleep(_SETTLE_SECONDS)
            before = {one.label: one.cpu_seconds() for one in subjects}
            time.sleep(seconds)  # the measure itself: all of them idle at the same time
            for one in subjects:
                used = one.cpu_seconds() - before[one.label]
                bench.results.add(f"idle CPU, {pods} pods, per minute", one.label, used * 60 / seconds)
