"""SIGKILL of the daemon at random moments of a pull."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from kill_node import Node, kill_rounds

pytestmark = pytest.mark.root


@pytest.mark.parametrize("half", ["first", "second"])  # of 200 rounds, which may take long
def test_after_a_kill_in_a_pull_the_store_is_right(
    node: Node, rng: random.Random, counts: Callable[[int, int], int], half: str
) -> None:
    kill_rounds(node, "pull", counts(2, 100), rng)
