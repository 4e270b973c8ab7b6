"""Names and numbers of stop signals."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noded.model.signals import signal_number


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("SIGTERM", 15),
        ("term", 15),
        (" SIGKILL ", 9),
        ("15", 15),
        ("64", 64),
        ("SIGRTMIN", 34),
        ("RTMIN+3", 37),
        ("SIGRTMINPLUS3", 37),
        ("SIGRTMAX", 64),
        ("RTMAX-14", 50),
        ("SIGRTMAXMINUS1", 63),
    ],
)
def test_every_way_to_write_a_signal_gives_its_number(name, number):
    assert signal_number(name) == number


@pytest.mark.parametrize(
    "name", ["", "SIG", "0", "65", "-1", "NOPE", "RTMIN-1", "RTMAX+1", "SIG_DFL", "_IGN", "²"]
)
def test_what_is_no_signal_has_no_number(name):
    assert signal_number(name) is None


@given(st.text())
def test_any_text_gives_a_signal_of_the_kernel_or_none(text):
    number = signal_number(text)
    assert number is None or 1 <= number <= 64
