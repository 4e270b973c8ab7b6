"""Sizes and ages as people read them."""

from __future__ import annotations

_SECOND_NS = 1_000_000_000
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))


def size(count_bytes: int) -> str:
    """A number of bytes with three significant digits: `1.86 MB` (powers of 1000, as registries show)."""
    if count_bytes < 1000:
        return f"{count_bytes} B"
    value = float(count_bytes)
    for unit in ("kB", "MB", "GB", "TB", "PB", "EB"):
        value /= 1000
        if value < 999.5 or unit == "EB":
            break
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{digits}f} {unit}"


def age(since_ns: int, now_ns: int) -> str:
    """Time since an instant in its largest whole unit: `45s`, `3h`; `-` for an unset (0) instant."""
    if since_ns <= 0:
        return "-"
    seconds = max(0, now_ns - since_ns) // _SECOND_NS
    for length, unit in _UNITS:
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return "0s"


def short_id(identifier: str) -> str:
    """The first 13 digits of an id or digest, as crictl shows them."""
    return identifier.removeprefix("sha256:")[:13]
