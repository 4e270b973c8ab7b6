"""Durations as Go writes and reads them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noded.wire.go_duration import seconds


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0.0),
        ("4h0m0s", 14400.0),
        ("1.5s", 1.5),
        (".5m", 30.0),
        ("100ms", 0.1),
        ("1h30m", 5400.0),
        ("2us", 2e-6),
    ],
)
def test_a_duration_is_seconds(text, expected):
    assert seconds(text) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "5", "-1s", "1d", "1s 2s", "s", ".", ".s", "1,5s", "٣s", "infs"])
def test_what_is_no_duration_is_none(text):
    assert seconds(text) is None


parts = st.tuples(st.integers(0, 10**6), st.sampled_from([("h", 3600), ("m", 60), ("s", 1), ("ms", 0.001)]))


@given(st.lists(parts, min_size=1, max_size=4))
def test_parts_are_added(listed):
    text = "".join(f"{number}{unit}" for number, (unit, _) in listed)
    assert seconds(text) == pytest.approx(sum(number * factor for number, (_, factor) in listed))


@given(st.text(max_size=12))
def test_any_text_is_understood_or_refused(text):
    found = seconds(text)
    assert found is None or found >= 0
