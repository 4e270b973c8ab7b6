from __future__ import annotations

import pytest

from noded.errors import ResourceExhausted
from noded.streams.tokens import Tokens


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_a_token_works_once_and_for_its_kind_only(clock):
    tokens = Tokens(clock)
    token = tokens.issue("exec", "request")
    assert tokens.redeem("attach", token) is None
    assert tokens.redeem("exec", token) == "request"
    assert tokens.redeem("exec", token) is None


def test_a_token_expires_after_a_minute(clock):
    tokens = Tokens(clock)
    token = tokens.issue("exec", "request")
    clock.now = 59.9
    assert len(tokens) == 1
    clock.now = 60.0
    assert tokens.redeem("exec", token) is None
    assert len(tokens) == 0


def test_the_table_is_bounded_and_frees_itself(clock):
    tokens = Tokens(clock)
    for number in range(1000):
        tokens.issue("exec", number)
    with pytest.raises(ResourceExhausted, match="1000 streams"):
        tokens.issue("exec", 1000)
    clock.now = 61.0
    tokens.issue("exec", 1001)
    assert len(tokens) == 1


def test_tokens_do_not_repeat_and_are_long(clock):
    tokens = Tokens(clock)
    issued = {tokens.issue("exec", None) for _ in range(500)}
    assert len(issued) == 500
    assert min(map(len, issued)) >= 43


@pytest.mark.parametrize("guess", ["", "a", "x" * 100000, "\ud800", "é"])
def test_a_guess_is_refused(clock, guess):
    tokens = Tokens(clock)
    tokens.issue("exec", "request")
    assert tokens.redeem("exec", guess) is None
