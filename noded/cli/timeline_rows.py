"""What a terminal, a picture and a page have in common when they show a row of a timeline."""

from __future__ import annotations

from collections.abc import Mapping

from noded.model.timeline import Row

# By the first word of a step's name.
_CATEGORIES: Mapping[str, str] = {
    word: kind
    for kind, words in {
        "wait": "wait",
        "network": "CNI network namespaces",
        "image": "layer layers download inflate manifest rootfs volumes publish ask",
        "runtime": "runtime start move runc crun runsc shim signal kill",
    }.items()
    for word in words.split()
}


def duration(ns: int) -> str:
    """With three digits: `812 µs`, `1.20 ms`, `34.5 ms`, `6.02 s`."""
    if ns < 1_000_000:
        return f"{ns / 1000:.0f} µs"
    value, unit = (ns / 1e6, "ms") if ns < 1_000_000_000 else (ns / 1e9, "s")
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {unit}"


def category(row: Row) -> str:
    """What kind of work a row is: call, gap, network, image, runtime, wait, other."""
    if row.gap:
        return "gap"
    if row.depth == 0:
        return "call"
    first = row.name.removeprefix("undo ").partition(" ")[0]
    return _CATEGORIES.get(first, "other")
