"""How long to wait between the tries of what must succeed in the end."""

from __future__ import annotations

import random
from collections.abc import Iterator


def delays(first_seconds: float, longest_seconds: float) -> Iterator[float]:
    """Seconds before each next try, without end: twice the last ones, a fifth more or less by chance."""
    delay = first_seconds
    while True:
        yield delay * random.uniform(0.8, 1.2)
        delay = min(delay * 2, longest_seconds)
