"""How long to wait between the tries of what must succeed in the end."""

from __future__ import annotations

import random
from collections.abc import Iterator

_LOCAL_FIRST_SECONDS = 0.5
_LOCAL_LONGEST_SECONDS = 15.0


def delays(first_seconds: float, longest_seconds: float, *, spread: float = 0.2) -> Iterator[float]:
    """Seconds before each next try, without end: twice the last ones, more or less by chance.

    Args:
        spread: the largest part of a delay that chance adds or takes away.
    """
    delay = first_seconds
    while True:
        yield delay * random.uniform(1 - spread, 1 + spread) if spread else delay
        delay = min(delay * 2, longest_seconds)


def local_delays() -> Iterator[float]:
    """For tries that nothing outside this node shares: no chance, and up to a quarter of a minute."""
    return delays(_LOCAL_FIRST_SECONDS, _LOCAL_LONGEST_SECONDS, spread=0.0)
