"""One module per measure: `run(bench)` adds its rows to `bench.results`."""

from __future__ import annotations

import importlib

# In the order of a run: what wants an undisturbed daemon first. Memory before any other system runs: two
# containerds at once would share the pages of their program, so that each seems to need half of them.
NAMES = (
    "memory",
    "pod_start",
    "execs",
    "throughput",
    "timeline",
    "idle",
    "lists",
    "restart",
    "pulls",
    "simulation",
)


def load(name: str):
    """The module of one measure."""
    return importlib.import_module(f"{__name__}.{name}")
