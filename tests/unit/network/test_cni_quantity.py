from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noded.errors import InvalidArgument
from noded.model.quantity import parse_quantity


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0), ("10", 10), ("+10", 10), ("-3", -3), ("10k", 10_000), ("10M", 10_000_000),
        ("1.5G", 1_500_000_000), ("1Ki", 1024), ("1.5Gi", 1_610_612_736), ("2e6", 2_000_000),
        ("2E6", 2_000_000), ("1E", 10**18), ("1Ei", 2**60), ("1m", 1), ("1500m", 2), ("-1500m", -2),
        ("999n", 1), ("1.", 1), (".5k", 500), ("12e-1", 2),
    ],
)  # fmt: skip
def test_a_quantity_has_the_value_kubernetes_gives_it(text, value):
    assert parse_quantity(text) == value


@pytest.mark.parametrize(
    "text", ["", "M", "1MB", "1 M", "0x10", "1e", "1e9999", "1K", "٣", "1\n", "1" * 65, "--1", "."]
)
def test_what_is_no_quantity_is_refused(text):
    with pytest.raises(InvalidArgument, match="is not a quantity"):
        parse_quantity(text)


@given(st.text(max_size=80))
def test_any_text_is_a_number_or_refused(text):
    with suppress(InvalidArgument):
        assert isinstance(parse_quantity(text), int)


@given(
    st.integers(-(10**15), 10**15),
    st.sampled_from([("", 1), ("k", 1000), ("M", 10**6), ("Ki", 1024), ("e3", 1000)]),
)
def test_a_whole_number_with_a_suffix_is_exact(number, suffix):
    assert parse_quantity(f"{number}{suffix[0]}") == number * suffix[1]
