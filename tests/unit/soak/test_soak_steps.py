"""Steps of a soak: the same for the same seed, the same after writing and reading, and shrinkable."""

from __future__ import annotations

import random
from unittest.mock import Mock

from hypothesis import given
from hypothesis import strategies as st

from tests.soak.player import Player
from tests.soak.shrink import shrink
from tests.soak.steps import ALONE, AROUND, PODS, dumps, generate, loads


@given(st.integers(), st.integers(1, 50))
def test_steps_depend_on_the_seed_only_and_survive_a_file(seed, count):
    steps = generate(random.Random(seed), count)
    assert steps == generate(random.Random(seed), count)
    assert len(steps) == count
    assert loads(dumps(steps)) == steps


@given(st.integers())
def test_what_is_done_at_once_is_done_to_different_pods(seed):
    for step in generate(random.Random(seed), 50):
        pods = [inner.pod for inner in step.steps]
        assert len(set(pods)) == len(pods)
        assert all(0 <= pod < PODS for pod in pods)


def test_the_player_knows_every_kind_of_step():
    player = Player(Mock())
    for kind in {**ALONE, **AROUND}:
        assert callable(player.doer(kind))


@given(st.lists(st.integers(0, 30), unique=True, min_size=2), st.data())
def test_a_failure_of_two_items_is_shrunk_to_these_two(items, data):
    culprits = set(data.draw(st.permutations(items))[:2])
    tries = []

    def fails(some):
        tries.append(some)
        return culprits <= set(some)

    assert set(shrink(items, fails, 1000)) == culprits
    assert all(tries)


@given(st.lists(st.integers(), min_size=1), st.integers(0, 5))
def test_no_more_runs_than_allowed(items, runs):
    tries = []

    def fails(some):
        tries.append(some)
        return False

    assert shrink(items, fails, runs) == items
    assert len(tries) <= runs
