"""Finding a short sequence of steps that still fails: delta debugging (Zeller and Hildebrandt, 2002)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def shrink(items: Sequence[T], fails: Callable[[list[T]], bool], runs: int) -> list[T]:
    """A subsequence of `items` that fails, shorter where `runs` tries are enough to find one.

    Args:
        fails: tries a subsequence; may be wrong now and then, as races are.
    """
    current, parts = list(items), 2
    while len(current) > 1 and runs > 0:
        size = -(-len(current) // parts)
        smaller = None
        # The end first: a failure is mostly of the last steps.
        for start in range((len(current) - 1) // size * size, -1, -size):
            if runs == 0:
                break
            candidate = current[:start] + current[start + size :]
            runs -= 1
            if candidate and fails(candidate):
                smaller = candidate
                break
        if smaller is not None:
            current, parts = smaller, max(parts - 1, 2)
        elif size == 1:
            break
        else:
            parts = min(parts * 2, len(current))
    return current
