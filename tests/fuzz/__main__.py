"""`make fuzz`: every target for a time, each in a process of its own with bounded memory.

With atheris installed the inputs are guided by coverage, and the corpus is kept; without it they are
Hypothesis' mutations of the seeds. What fails is printed and, with atheris, kept beside the corpus.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import resource
import subprocess
import sys
import time
from pathlib import Path

from tests.fuzz.report import RESULTS, Outcome, figures, put
from tests.support.commit import describe_tree

REPOSITORY = Path(__file__).resolve().parents[2]
MEMORY_BYTES = 512 << 20  # more than the parsers together may need; what is over ends the run


def main() -> int:
    """Run the chosen targets one after the other; exit 1 when one failed."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=600, help="for each target")
    parser.add_argument("--corpus", type=Path, default=REPOSITORY / "build" / "fuzz")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--one", help=argparse.SUPPRESS)  # the process of one target
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="see targets.py; default all")
    arguments = parser.parse_args()
    if arguments.one:  # before anything imports what is to be instrumented
        return _one(arguments.one, arguments.seconds, arguments.corpus / arguments.one, arguments.seed)
    from tests.fuzz.targets import TARGETS

    if unknown := sorted(set(arguments.targets) - set(TARGETS)):
        parser.error(f"no such target: {', '.join(unknown)}; there are {', '.join(TARGETS)}")
    failed = []
    for name in arguments.targets or TARGETS:
        outcome = _run(name, arguments)
        if outcome.result != "clean":
            failed.append(name)
        put(arguments.results, outcome)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _run(name: str, arguments: argparse.Namespace) -> Outcome:
    """Run one target in a process of its own, and show what it prints."""
    own = [f"--{key}={getattr(arguments, key)}" for key in ("seconds", "corpus", "seed")]
    begun = datetime.datetime.now(datetime.UTC)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fuzz", f"--one={name}", *own],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    assert process.stdout is not None
    output = []
    for line in process.stdout:
        print(line, end="", flush=True)
        output.append(line)
    status = process.wait()
    inputs, found, megabytes, guide = figures("".join(output))
    return Outcome(
        target=name,
        inputs=inputs,
        seconds=arguments.seconds,
        found=found,
        megabytes=megabytes,
        guide=guide,
        seed=arguments.seed,
        commit=describe_tree(),
        begun=f"{begun:%Y-%m-%d %H:%M}",
        result="clean" if status == 0 and inputs else f"failed with status {status}",
    )


def _one(name: str, seconds: int, corpus: Path, seed: int) -> int:
    if importlib.util.find_spec("atheris") is not None:
        return _guided(name, seconds, corpus, seed)
    return _mutated(name, seconds, seed)


def _guided(name: str, seconds: int, corpus: Path, seed: int) -> int:
    import atheris

    with atheris.instrument_imports(include=["noded.wire", "noded.images.unpack"]):
        from tests.fuzz import targets
    target = targets.TARGETS[name]
    targets.write_seeds(target, corpus)
    print(f"{name}: {seconds} s, guided by coverage", flush=True)
    options = [
        f"-max_total_time={seconds}",
        f"-seed={seed}",
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


def _mutated(name: str, seconds: int, first: int) -> int:
    from hypothesis import HealthCheck, given, seed, settings

    from tests.fuzz.mutations import mutated
    from tests.fuzz.targets import TARGETS

    target, count, ends = TARGETS[name], 0, time.monotonic() + seconds
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    rounds = 0
    while time.monotonic() < ends:

        @seed((first << 32) + rounds)
        @settings(deadline=None, database=None, max_examples=300, suppress_health_check=list(HealthCheck))
        @given(mutated(target.seeds))
        def run(data: bytes) -> None:
            nonlocal count
            count += 1
            target.run(data)

        run()
        rounds += 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"{name}: {count} inputs in {seconds} s, at most {peak} MB", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
