"""One module per measure: `run(bench)` adds its rows to `bench.results`."""

from __future__ import annotations

import importlib

# In the order of a run: what wants an undisturbed daemon first.
NAMES = (
    "pod_start",
    "execs",
    "memory",
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
