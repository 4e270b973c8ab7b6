"""Calling foreign code from plain code: in a thread of its own, for a limited time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from noded.errors import DeadlineExceeded

T = TypeVar("T")

_REASON_LIMIT = 500  # characters


def call_within(seconds: float, function: Callable[[], T], what: str) -> T:
    """Return what the function returns, or raise what it raises.

    A call that is late is abandoned: its daemon thread goes on, and its result is dropped.

    Args:
        what: names the call in the error.

    Raises: DeadlineExceeded after `seconds`.
    """
    results: list[T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(function())
        # A plugin may even raise SystemExit; in its own thread that must not be lost.
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run, name=what, daemon=True)
    thread.start()
    thread.join(seconds)
    if failures:
        raise failures[0]
    if not results:
        raise DeadlineExceeded(f"{what} did not return within {seconds:g} s")
    return results[0]


def reason(error: BaseException) -> str:
    """Say in one line what foreign code raised."""
    text = " ".join(str(error).split())[:_REASON_LIMIT]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
