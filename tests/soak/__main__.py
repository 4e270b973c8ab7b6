"""`python -m tests.soak`: soak noded for a time, and write down what came of it; `--replay` for one trace."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from tests.crash.world import IMAGE
from tests.soak.report import RESULTS, put_row
from tests.soak.soak import SHRINK_RUNS, Outcome, replay, soak
from tests.soak.steps import dumps, loads
from tests.support import images

BUILD = Path(__file__).resolve().parents[2] / "build"
TRACE = BUILD / "soak-trace.jsonl"


def main() -> int:
    """Run; exit 1 when anything failed."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--steps", type=int, default=0, help="a count of steps instead of a time")
    parser.add_argument("--first", type=int, help="number of the first episode, else the one not done yet")
    parser.add_argument("--pace", type=float, default=0.0, help="steps per second, at most")
    parser.add_argument("--shrink-runs", type=int, default=SHRINK_RUNS)
    parser.add_argument("--replay", type=Path, help="play the steps of this file once")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="noded-soak-") as name:
        directory = Path(name)
        layout = images.write_layout(images.busybox_image(), directory / "layout", IMAGE)
        if arguments.replay:
            error = replay(loads(arguments.replay.read_text()), layout, directory)
            print(error or "no failure")
            return 1 if error else 0
        following = BUILD / f"soak-{arguments.seed}.next"
        first = arguments.first
        if first is None:
            first = int(following.read_text()) if following.exists() else 0
        print(f"seed {arguments.seed}, from episode {first + 1}", flush=True)
        asked_to_end: list[int] = []
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: asked_to_end.append(number))

        def note(outcome: Outcome) -> bool:
            """So that an end without notice loses one episode, not all."""
            put_row(RESULTS, outcome)
            BUILD.mkdir(exist_ok=True)
            following.write_text(str(outcome.following))
            return bool(asked_to_end)

        outcome = soak(
            arguments.seed,
            layout,
            directory,
            steps=arguments.steps,
            seconds=arguments.seconds,
            shrink_runs=arguments.shrink_runs,
            first=first,
            pace=arguments.pace,
            done=note,
            told=lambda line: print(line, flush=True),
        )
    put_row(RESULTS, outcome)
    print(f"{RESULTS} written")
    if outcome.trace:
        TRACE.parent.mkdir(exist_ok=True)
        TRACE.write_text(dumps(outcome.trace))
        print(f"{TRACE} written: python -m tests.soak --replay {TRACE}")
    return 1 if outcome.error else 0


if __name__ == "__main__":
    sys.exit(main())
