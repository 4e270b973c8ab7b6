"""A soak: episodes of random steps until a count or a time is reached, and what came of it."""

from __future__ import annotations

import datetime
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.soak.player import Player, open_player, resident_kilobytes
from tests.soak.shrink import shrink
from tests.soak.steps import Step, dumps, generate
from tests.support.commit import describe_tree

EPISODE_STEPS = 120
SHRINK_RUNS = 24


@dataclass
class Outcome:
    """What a soak has done.

    Args:
        steps, faults: how many were done, and how many of them were faults.
        codes: gRPC code -> answers with it.
        kilobytes: memory of noded after the first and after the last episode.
        error: why it failed; "" = it did not.
        trace: the steps of the failed episode, shrunk where there was time.
        commit: of this tree at the start, which was at `date`.
        following: number of the episode after the last that was clean.
    """

    seed: int
    seconds: float = 0.0
    episodes: int = 0
    steps: int = 0
    faults: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    kilobytes: tuple[int, int] = (0, 0)
    error: str = ""
    trace: list[Step] = field(default_factory=list)
    commit: str = field(default_factory=describe_tree)
    date: str = field(default_factory=lambda: f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M}")
    following: int = 0


def episode(seed: int, number: int, count: int = EPISODE_STEPS) -> list[Step]:
    """The steps of one episode."""
    return generate(random.Random(f"{seed} {number}"), count)


def soak(
    seed: int,
    layout: Path,
    directory: Path,
    *,
    steps: int = 0,
    seconds: float = 0.0,
    shrink_runs: int = SHRINK_RUNS,
    first: int = 0,
    pace: float = 0.0,
    told: Callable[[str], None] = print,
    done: Callable[[Outcome], bool] = lambda outcome: False,
) -> Outcome:
    """Play episodes until `steps` are done or `seconds` have passed; on failure, shrink the episode.

    Args:
        layout: OCI layout of the image that containers run.
        first: number of the first episode.
        pace: steps per second, at most; 0 = as fast as it goes.
        told: gets lines about the progress.
        done: gets what came of it so far after each episode; True = that is enough.
    """
    outcome, started = Outcome(seed, following=first), time.monotonic()
    with (
        tempfile.TemporaryDirectory(dir=directory, prefix="soak-") as name,
        open_player(Path(name), layout) as player,
    ):
        playing: list[Step] = []
        number = first
        try:
            while outcome.steps < steps if steps else time.monotonic() - started < seconds:
                count = min(EPISODE_STEPS, steps - outcome.steps) if steps else EPISODE_STEPS
                playing = episode(seed, number, count)
                player.play(playing, pace)
                number += 1
                outcome.following = number
                _count(outcome, player, time.monotonic() - started)
                told(
                    f"episode {number}: {outcome.steps} steps, {outcome.faults} faults, no leak, "
                    f"{outcome.seconds:.0f} s, noded has {outcome.kilobytes[1] / 1024:.1f} MiB"
                )
                if done(outcome):
                    break
        except Exception as error:
            _count(outcome, player, time.monotonic() - started)
            outcome.error = f"episode {number} of seed {seed}: {type(error).__name__}: {error}"
            outcome.trace = playing[: player.reached + 1]
            told(outcome.error)
    if outcome.trace:
        told(f"shrinking {len(outcome.trace)} steps in at most {shrink_runs} runs")
        outcome.trace = shrink(outcome.trace, lambda some: bool(replay(some, layout, directory)), shrink_runs)
        told(f"steps that fail:\n{dumps(outcome.trace)}")
    return outcome


def replay(steps: list[Step], layout: Path, directory: Path) -> str:
    """Play these steps on a new daemon; the error, "" if there was none."""
    with (
        tempfile.TemporaryDirectory(dir=directory, prefix="replay-") as name,
        open_player(Path(name), layout) as player,
    ):
        try:
            player.play(steps)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return ""


def _count(outcome: Outcome, player: Player, seconds: float) -> None:
    outcome.seconds = seconds
    outcome.kinds, outcome.codes = Counter(player.done), Counter(player.node.codes)
    outcome.steps, outcome.faults = player.done.total(), player.faults
    outcome.episodes = player.episodes
    if player.world.daemon.running:
        now = resident_kilobytes(player.world.daemon.pid)
        outcome.kilobytes = (outcome.kilobytes[0] or now, now)
