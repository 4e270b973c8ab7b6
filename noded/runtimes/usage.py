"""What `events --stats` prints: the usage of a container in its runtime's own words. Pure."""

from __future__ import annotations

import json
from typing import Any

from noded.errors import Unavailable
from noded.model.runtime import TaskUsage


def parse_usage(output: bytes, program: str) -> TaskUsage:
    """Read the first event. A number that is absent is zero, as Go leaves zeroes out.

    Raises: Unavailable when it is no such event.
    """
    try:
        event = json.loads(output.partition(b"\n")[0])
        if event["type"] != "stats":
            raise ValueError(f"an event of type {event['type']!r}")
        data = event["data"]
        memory = _number(data, "memory", "usage", "usage")
        return TaskUsage(
            _number(data, "cpu", "usage", "total"), memory, memory, _number(data, "pids", "current")
        )
    except (ValueError, KeyError, TypeError) as error:
        raise Unavailable(f"{program} events --stats answered nonsense ({error}): {output[:200]!r}") from None


def _number(value: Any, *keys: str) -> int:
    for key in keys[:-1]:
        value = value.get(key) or {}
        if not isinstance(value, dict):
            raise TypeError(f"{key} is not an object")
    number = value.get(keys[-1], 0)
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise TypeError(f"{'.'.join(keys)} is {number!r}")
    return number
