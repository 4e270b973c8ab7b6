from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noded.cli.quantities import age, short_id, size
from noded.cli.table import plain, print_table

SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (1_862_345, "1.86 MB"), (999_600, "1.00 MB"),
     (45_678_901, "45.7 MB"), (123_456_789_012, "123 GB")],
)  # fmt: skip
def test_sizes_have_three_digits(count, text):
    assert size(count) == text


@given(st.integers(0, 10**21))
def test_every_size_is_short(count):
    assert len(size(count)) <= 8 or count >= 10**21


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59, "59s"), (60, "1m"), (7199, "1h"), (86_400 * 3, "3d"), (-5, "0s")]
)
def test_ages_are_in_their_largest_unit(seconds, text):
    now = 10**18
    assert age(now - seconds * SECOND, now) == text


def test_an_instant_that_never_was_has_no_age():
    assert age(0, 10**18) == "-"


def test_a_digest_is_shortened_without_its_algorithm():
    assert short_id("sha256:" + "0123456789abcdef" * 4) == "0123456789abc"


def test_columns_are_aligned_and_lines_have_no_trailing_blanks():
    assert plain(("A", "LONG"), [("value", ""), ("v", "x")]) == ["A       LONG", "value", "v       x"]


def test_a_name_cannot_drive_the_terminal(capsys):
    print_table(("NAME",), [("evil\x1b[2Jname\n",)])
    assert "\x1b" not in capsys.readouterr().out
