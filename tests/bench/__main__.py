"""`make bench`: run the chosen measures, print a table, write JSON, SVG and RESULTS.md."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from tests.bench import measures, report
from tests.bench.bench import FULL, QUICK, Bench
from tests.support.daemon import REPOSITORY
from tests.support.registry import Registry


def main() -> int:
    """Parse, measure, report. What was measured before an interruption is reported too."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small counts; RESULTS.md is left alone")
    parser.add_argument("--only", default="", help=f"comma-separated, of: {', '.join(measures.NAMES)}")
    parser.add_argument("--without", default="", help="comma-separated systems to leave out")
    parser.add_argument(
        "--endpoint", action="append", default=[], metavar="NAME=unix:///path", help="another CRI server"
    )
    parser.add_argument("--publish", action="store_true", help="write RESULTS.md even after a partial run")
    arguments = parser.parse_args()
    names = [name for name in arguments.only.split(",") if name] or list(measures.NAMES)
    if unknown := set(names) - set(measures.NAMES):
        parser.error(f"no such measure: {', '.join(sorted(unknown))}")
    if os.geteuid() != 0:
        parser.error("only root can run pods")
    whole = not arguments.quick and not arguments.only
    with tempfile.TemporaryDirectory(prefix="noded-bench-", dir="/var/tmp") as path, ExitStack() as stack:
        directory = Path(path)
        registry = stack.enter_context(Registry(directory / "registry"))
        counts = QUICK if arguments.quick else FULL
        bench = Bench(
            directory, counts, registry, arguments.endpoint, frozenset(arguments.without.split(",")), stack
        )
        try:
            for name in names:
                started = time.monotonic()
                measures.load(name).run(bench)
                print(f"--- {name}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
        finally:
            if bench.results.rows:
                publish = arguments.publish or whole
                report.write(bench.results, REPOSITORY / "build" / "bench", publish=publish, whole=whole)
    return 0


if __name__ == "__main__":
    sys.exit(main())
