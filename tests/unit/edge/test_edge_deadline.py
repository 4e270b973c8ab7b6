from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noded.edge.deadline import Deadline
from noded.errors import InvalidArgument


def test_without_a_header_the_client_waits_for_ever():
    deadline = Deadline.of([(":path", "/x")])
    assert deadline.remaining_seconds() is None
    assert deadline.budget_seconds() is None


@pytest.mark.parametrize(("text", "seconds"), [("2S", 2), ("1500m", 1.5), ("3M", 180), ("1H", 3600)])
def test_units_are_those_of_grpc(text, seconds):
    assert Deadline.of([("grpc-timeout", text)]).remaining_seconds() == pytest.approx(seconds, abs=0.2)


@given(st.integers(0, 10**8 - 1), st.sampled_from("HMSmun"))
def test_the_core_gets_less_time_than_the_client_waits_and_never_less_than_half(value, unit):
    deadline = Deadline.of([("grpc-timeout", f"{value}{unit}")])
    budget, remaining = deadline.budget_seconds(), deadline.remaining_seconds()
    assert budget >= 0
    assert remaining / 2 <= budget + 1e-6
    if remaining > 60:
        assert remaining - budget < 0.6


@pytest.mark.parametrize("text", ["", "5", "S", "-1S", "1.5S", "9" * 400 + "S"])
def test_a_malformed_timeout_is_an_invalid_argument(text):
    with pytest.raises(InvalidArgument, match="grpc-timeout"):
        Deadline.of([("grpc-timeout", text)])
