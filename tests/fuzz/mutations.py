"""Inputs near the seeds, as a Hypothesis strategy: it shrinks what fails to a few bytes."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from hypothesis import strategies as st

_EXTREMES = [struct.pack(">I", value) for value in (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x00FFFFFF)]


@st.composite
def mutated(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """A seed with up to ten changes, or any bytes at all."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=400))
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, 10))):
        at = draw(st.integers(0, len(data)))
        end = min(len(data), at + draw(st.integers(0, 64)))
        change = draw(st.sampled_from(("replace", "insert", "delete", "repeat", "join", "extreme", "flip")))
        if change == "replace":
            data = data[:at] + draw(st.binary(min_size=1, max_size=8)) + data[at + 1 :]
        elif change == "insert":
            data = data[:at] + draw(st.binary(min_size=1, max_size=32)) + data[at:]
        elif change == "delete":
            data = data[:at] + data[end:]
        elif change == "repeat":
            data = data[:at] + data[at:end] * draw(st.integers(2, 40)) + data[end:]
        elif change == "join":
            data = data[:at] + draw(st.sampled_from(seeds))[1:]
        elif change == "extreme":
            data = data[:at] + draw(st.sampled_from(_EXTREMES)) + data[at + 4 :]
        elif at < len(data):
            data = data[:at] + bytes([data[at] ^ 1 << draw(st.integers(0, 7))]) + data[at + 1 :]
    return data
