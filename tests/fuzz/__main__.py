"""`make fuzz`: every target for a time, each in a process of its own with bounded memory.

With atheris installed the inputs are guided by coverage, and the corpus is kept; without it they are
Hypothesis' mutations of the seeds. What fails is printed and, with atheris, kept beside the corpus.
"""

from __future__ import annotations

import argparse
import importlib.util
import resource
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
MEMORY_BYTES = 512 << 20  # more than the parsers together may need; what is over ends the run


def main() -> int:
    """Run the chosen targets one after the other; exit 1 when one failed."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=600, help="for each target")
    parser.add_argument("--corpus", type=Path, default=REPOSITORY / "build" / "fuzz")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # the process of one target
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="see targets.py; default all")
    arguments = parser.parse_args()
    if arguments.one:  # before anything imports what is to be instrumented
        return _one(arguments.one, arguments.seconds, arguments.corpus / arguments.one)
    from tests.fuzz.targets import TARGETS

    if unknown := sorted(set(arguments.targets) - set(TARGETS)):
        parser.error(f"no such target: {', '.join(unknown)}; there are {', '.join(TARGETS)}")
    failed = []
    for name in arguments.targets or TARGETS:
        own = [f"--one={name}", f"--seconds={arguments.seconds}", f"--corpus={arguments.corpus}"]
        done = subprocess.run([sys.executable, "-m", "tests.fuzz", *own], cwd=REPOSITORY, check=False)
        if done.returncode != 0:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _one(name: str, seconds: int, corpus: Path) -> int:
    if importlib.util.find_spec("atheris") is not None:
        return _guided(name, seconds, corpus)
    return _mutated(name, seconds)


def _guided(name: str, seconds: int, corpus: Path) -> int:
    import atheris  # type: ignore[import-not-found]

    with atheris.instrument_imports(include=["noded.wire", "noded.images.unpack"]):
        from tests.fuzz import targets
    target = targets.TARGETS[name]
    targets.write_seeds(target, corpus)
    print(f"{name}: {seconds} s, guided by coverage", flush=True)
    options = [
        f"-max_total_time={seconds}",
        f"-rss_limit_mb={MEMORY_BYTES >> 20}",
        f"-artifact_prefix={corpus}.failed-",
        "-max_len=16384",
        "-timeout=10",
        "-print_final_stats=1",
        "-verbosity=0",
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], target.run)
    atheris.Fuzz()  # ends the process
    return 0


def _mutated(name: str, seconds: int) -> int:
    from hypothesis import HealthCheck, given, seed, settings

    from tests.fuzz.mutations import mutated
    from tests.fuzz.targets import TARGETS

    target, count, ends = TARGETS[name], 0, time.monotonic() + seconds
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    start = time.time_ns()
    rounds = 0
    while time.monotonic() < ends:

        @seed(start + rounds)
        @settings(deadline=None, database=None, max_examples=300, suppress_health_check=list(HealthCheck))
        @given(mutated(target.seeds))
        def run(data: bytes) -> None:
            nonlocal count
            count += 1
            target.run(data)

        run()
        rounds += 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"{name}: {count} inputs in {seconds} s, seeds from {start}, at most {peak} MB", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
