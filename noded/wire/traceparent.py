"""The header `traceparent`: in which trace a caller's request takes place.

Spec: W3C Trace Context level 1, section 3.2.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_FORM = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})(?P<rest>-.*)?"
)
_SAMPLED = 0x01


@dataclass(frozen=True, slots=True)
class TraceParent:
    """The caller's span. `sampled`: the caller records this trace."""

    trace_id: str
    span_id: str
    sampled: bool


def parse(text: str) -> TraceParent | None:
    """Read the header; None for one that is to be ignored, as the specification demands (3.2.2)."""
    found = _FORM.fullmatch(text.strip())
    if found is None or found["version"] == "ff" or (found["version"] == "00" and found["rest"]):
        return None
    if not int(found["trace"], 16) or not int(found["span"], 16):
        return None
    return TraceParent(found["trace"], found["span"], bool(int(found["flags"], 16) & _SAMPLED))
