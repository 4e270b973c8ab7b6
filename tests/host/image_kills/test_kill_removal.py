"""SIGKILL of the daemon at random moments of a removal and its collection of garbage."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from kill_node import Node, kill_rounds

pytestmark = pytest.mark.root


@pytest.mark.parametrize("half", ["first", "second"])  # of 200 rounds, which may take long
def test_after_a_kill_in_a_removal_the_store_is_right(
    node: Node, rng: random.Random, counts: Callable[[int, int], int], half: str
) -> None:
    kill_rounds(node, "removal", counts(2, 100), rng)
