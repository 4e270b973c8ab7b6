"""The steps of a soak, as values that are made from a seed, written down, shrunk and done again.

A step names pods and containers by slot, never by id, and fits any state of the node: what its slot
does not hold is asked for all the same, as a client does that has missed something.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

PODS = 5
CONTAINERS = 2

# kind -> how often it comes, relative to the others
ALONE = {
    "run_pod": 16, "stop_pod": 4, "remove_pod": 8,
    "create": 12, "start": 12, "stop": 5, "remove": 6,
    "exec": 10, "update": 3, "reopen_log": 2, "status": 6,
    "kill_process": 4, "kill_monitor": 2,
}  # fmt: skip
AROUND = {
    "duplicate": 5, "cancel": 7, "deadline": 5, "together": 5,
    "restart": 1, "crash": 3, "reload": 1,
    "break_cni": 2, "heal_cni": 3, "fill_disk": 1, "free_disk": 3,
    "load_image": 2, "remove_image": 2, "hostile": 18,
}  # fmt: skip
FAULTS = frozenset(
    {
        "cancel",
        "deadline",
        "restart",
        "crash",
        "break_cni",
        "fill_disk",
        "kill_process",
        "kill_monitor",
        "hostile",
    }
)
_JOINED = ("run_pod", "create", "stop_pod", "remove_pod", "stop", "remove")
_GIVEN_UP = ("run_pod", "create", "exec")


@dataclass(frozen=True)
class Step:
    """One thing that is done.

    Args:
        pod, container: slots.
        variant: chooses among the ways of this kind of step.
        wait_ms: when a cancel, a deadline or a SIGKILL comes.
        steps: what is done meanwhile, each on another pod.
    """

    kind: str
    pod: int = 0
    container: int = 0
    variant: int = 0
    wait_ms: int = 0
    steps: tuple[Step, ...] = field(default=())

    def __str__(self) -> str:
        inner = "; ".join(map(str, self.steps))
        text = f"{self.kind} pod {self.pod} container {self.container} variant {self.variant}"
        return text + (f" after {self.wait_ms} ms" if self.wait_ms else "") + (f" [{inner}]" if inner else "")


def generate(rng: random.Random, count: int) -> list[Step]:
    """`count` steps."""
    kinds, weights = zip(*{**ALONE, **AROUND}.items(), strict=True)
    return [_step(rng, kind) for kind in rng.choices(kinds, weights, k=count)]


def _step(rng: random.Random, kind: str, pod: int | None = None) -> Step:
    inner: tuple[Step, ...] = ()
    place = rng.randrange(PODS) if pod is None else pod
    if kind in ("together", "crash"):
        names, weights = zip(*ALONE.items(), strict=True)
        pods = rng.sample(range(PODS), rng.randint(2, PODS))
        inner = tuple(
            _step(rng, name, slot) for slot, name in zip(pods, rng.choices(names, weights, k=9), strict=False)
        )
    elif kind in ("duplicate", "cancel", "deadline"):
        inner = (_step(rng, rng.choice(_JOINED if kind == "duplicate" else _GIVEN_UP), place),)
    # Most work is done in the first 100 ms; a slow machine needs longer.
    wait_ms = int(rng.expovariate(1 / 80)) + 1
    return Step(kind, place, rng.randrange(CONTAINERS), rng.randrange(1 << 16), wait_ms, inner)


def dumps(steps: Sequence[Step]) -> str:
    """One JSON object per line."""
    return "".join(json.dumps(_plain(step)) + "\n" for step in steps)


def loads(text: str) -> list[Step]:
    """The inverse of `dumps`."""
    return [_typed(json.loads(line)) for line in text.splitlines() if line.strip()]


def _plain(step: Step) -> dict[str, Any]:
    return {**vars(step), "steps": [_plain(one) for one in step.steps]}


def _typed(values: dict[str, Any]) -> Step:
    return Step(**{**values, "steps": tuple(_typed(one) for one in values["steps"])})
