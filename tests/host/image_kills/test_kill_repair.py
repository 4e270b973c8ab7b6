"""SIGKILL of the daemon at random moments of a repair, which downloads what is damaged."""

from __future__ import annotations

import random

import pytest
from kill_node import Node, kill_rounds

from tests.support.counts import full_counts

pytestmark = pytest.mark.root


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Fifty kills under `make prove`, in parts of some minutes each; otherwise three."""
    parts, kills = (2, 25) if full_counts() else (1, 3)
    metafunc.parametrize("kills", [kills] * parts, ids=[f"part-{number}" for number in range(1, parts + 1)])


def test_after_a_kill_in_a_repair_the_store_is_right(node: Node, rng: random.Random, kills: int) -> None:
    kill_rounds(node, "repair", kills, rng)
