"""How long to wait between tries of what must succeed in the end."""

from __future__ import annotations

from collections.abc import Iterator

_FIRST_SECONDS = 0.5
_LONGEST_SECONDS = 15.0


def growing_delays() -> Iterator[float]:
    """Seconds before the next try, without end: each twice the one before, up to a quarter of a minute."""
    delay = _FIRST_SECONDS
    while True:
        yield delay
        delay = min(delay * 2, _LONGEST_SECONDS)
