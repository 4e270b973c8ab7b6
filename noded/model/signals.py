"""Numbers of the stop signals that images and the CRI name. Pure."""

from __future__ import annotations

import re
import signal

# SIGRTMIN and SIGRTMAX as the kernel counts them for programs with glibc: signal(7).
_REALTIME = {"RTMIN": 34, "RTMAX": 64}
_LAST = 64
_REALTIME_NAME = re.compile(r"(RTMIN|RTMAX)(?:(?:\+|PLUS)([0-9]{1,2})|(?:-|MINUS)([0-9]{1,2}))?", re.ASCII)


def signal_number(name: str) -> int | None:
    """The number of a stop signal: `SIGTERM`, `term`, `15`, `SIGRTMIN+3`, `RTMAXMINUS1`; None if unknown."""
    text = name.strip().upper()
    if text.isascii() and text.isdecimal():
        number = int(text)
        return number if 1 <= number <= _LAST else None
    text = text.removeprefix("SIG")
    if match := _REALTIME_NAME.fullmatch(text):
        base, plus, minus = match.groups()
        number = _REALTIME[base] + int(plus or 0) - int(minus or 0)
        return number if _REALTIME["RTMIN"] <= number <= _LAST else None
    known = getattr(signal, f"SIG{text}", None)
    return int(known) if isinstance(known, signal.Signals) else None
