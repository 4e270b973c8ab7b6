"""The README's first command does what the README says, however it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.daemon import NodedDaemon
from tests.support.oracle import Facets, Oracle
from tests.support.processes import end, read_until

pytestmark = [pytest.mark.root, pytest.mark.long]

DEMO_SECONDS = 120


@pytest.fixture
def host(tmp_path: Path) -> tuple[Oracle, Facets]:
    """The oracle over the host alone, with a snapshot from before the demo."""
    oracle = Oracle(NodedDaemon(tmp_path))  # never started: only its names are used
    return oracle, oracle.take()


def assert_clean(output: str, oracle: Oracle, before: Facets) -> None:
    """Nothing of the demos that `output` names is left on the host."""
    names = set(re.findall(r"noded-demo-[0-9a-f]{6}", output))
    assert names
    for name in names:
        assert not [path for base in ("/var/tmp", "/run") for path in Path(base).glob(f"{name}*")]
    oracle.assert_unchanged(before)


def start(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "noded", "demo", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=Path(__file__).resolve().parents[2],
    )


@pytest.mark.parametrize("runtime", ["runc", "crun"])
def test_the_demo_runs_a_pod_and_leaves_the_host_as_it_was(host, runtime):
    oracle, before = host
    demo = start("--runtime", runtime)
    output = demo.communicate(timeout=DEMO_SECONDS)[0].decode()
    assert demo.returncode == 0, output
    assert "HTTP/1.1 200 OK" in output
    assert "Hello from a pod that noded runs." in output
    assert "web server starts on port 80" in output, "the log of the container"
    assert "uid=0(root)" in output, "the answer of exec"
    assert "left over" not in output
    assert "\x1b" not in output, "colours belong on a terminal"
    assert_clean(output, oracle, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "step",
    [
        "Assemble",
        "Start noded",
        "Load the image",
        "Run a pod",
        "Create and start",
        "Run a command",
        "Stop and",
    ],
)
def test_the_demo_cleans_up_when_it_is_interrupted(host, step, number):
    oracle, before = host
    demo = start()
    try:
        assert demo.stdout is not None
        read_until(demo.stdout, demo, lambda line: step in line, DEMO_SECONDS)
        demo.send_signal(number)
        output = demo.communicate(timeout=DEMO_SECONDS)[0].decode()
    finally:
        end(demo, DEMO_SECONDS)
    # A signal that comes with the last step may find nothing left to interrupt.
    assert demo.returncode == 128 + number, output
    assert_clean(output, oracle, before)


def test_what_a_killed_demo_leaves_is_removed_by_the_next_one(host):
    oracle, before = host
    demo = start()
    try:
        assert demo.stdout is not None
        read_until(demo.stdout, demo, lambda line: "Run a command" in line, DEMO_SECONDS)
    finally:
        demo.kill()
        demo.wait()
    output = start().communicate(timeout=DEMO_SECONDS)[0].decode()
    assert "Removed what noded-demo-" in output
    assert "left over" not in output
    assert_clean(output, oracle, before)


def test_an_unknown_runtime_is_named_and_nothing_is_left(host):
    oracle, before = host
    demo = start("--runtime", "no-such-runtime")
    output = demo.communicate(timeout=DEMO_SECONDS)[0].decode()
    assert demo.returncode == 1
    assert (
        output.splitlines()[-1] == "noded: no-such-runtime is not installed: apt-get install no-such-runtime"
    )
    assert_clean(output, oracle, before)


def test_the_demo_is_not_for_users_without_root():
    demo = subprocess.run(
        ["setpriv", "--reuid=65534", "--clear-groups", sys.executable, "-m", "noded", "demo"],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"]},
    )
    if "Permission denied" in demo.stderr or "No module" in demo.stderr:
        pytest.skip("another user cannot read this Python or this clone")
    assert demo.returncode == 1
    assert demo.stderr == (
        "noded: the demo makes namespaces, mounts and a bridge: run it as root (sudo make demo)\n"
    )
