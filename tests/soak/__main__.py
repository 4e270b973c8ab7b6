"""`python -m tests.soak`: soak noded for a time, and write down what came of it; `--replay` for one trace."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.crash.world import IMAGE
from tests.soak.report import RESULTS, add_row
from tests.soak.soak import SHRINK_RUNS, replay, soak
from tests.soak.steps import dumps, loads
from tests.support import images

TRACE = Path(__file__).resolve().parents[2] / "build" / "soak-trace.jsonl"


def main() -> int:
    """Run; exit 1 when anything failed."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--steps", type=int, default=0, help="a count of steps instead of a time")
    parser.add_argument("--first", type=int, default=0, help="number of the first episode")
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
        print(f"seed {arguments.seed}", flush=True)
        outcome = soak(
            arguments.seed,
            layout,
            directory,
            steps=arguments.steps,
            seconds=arguments.seconds,
            shrink_runs=arguments.shrink_runs,
            first=arguments.first,
            told=lambda line: print(line, flush=True),
        )
    add_row(RESULTS, outcome)
    print(f"{RESULTS} written")
    if outcome.trace:
        TRACE.parent.mkdir(exist_ok=True)
        TRACE.write_text(dumps(outcome.trace))
        print(f"{TRACE} written: python -m tests.soak --replay {TRACE}")
    return 1 if outcome.error else 0


if __name__ == "__main__":
    sys.exit(main())
