"""SIGKILL of the daemon at random moments of a repair, which downloads what is damaged."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from kill_node import Node, kill_rounds

pytestmark = pytest.mark.root


def test_after_a_kill_in_a_repair_the_store_is_right(
    node: Node, rng: random.Random, counts: Callable[[int, int], int]
) -> None:
    kill_rounds(node, "repair", counts(3, 50), rng)
