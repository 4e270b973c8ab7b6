"""The real irqbalance leaves the CPUs alone that it is told of, and keeps off them until it may come back."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from noded.host import interrupts, irqbalance

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("irqbalance") is None, reason="irqbalance is not installed"),
    pytest.mark.skipif(os.cpu_count() == 1, reason="needs a CPU that can be spared"),
]

DIRECTORY = Path("/run/irqbalance")
IRQS = Path("/proc/irq")


@pytest.fixture
def running() -> Iterator[subprocess.Popen[str]]:
    """An irqbalance of this test's own; the interrupts are served by the same CPUs afterwards."""
    if DIRECTORY.exists():
        pytest.skip("another irqbalance runs here")
    before = {path: path.read_text() for path in IRQS.glob("[0-9]*/smp_affinity")}
    DIRECTORY.mkdir()
    process = subprocess.Popen(
        ["irqbalance", "--foreground", "--interval=1"], stdout=subprocess.DEVNULL, text=True
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(DIRECTORY)
        for path, mask in before.items():
            try:
                path.write_text(mask)
            except OSError:
                continue  # bound by the kernel: never moved


def until(wanted: set[int]) -> None:
    """It acts on what it is told at its next look, a second later."""
    deadline = time.monotonic() + 60
    while irqbalance.banned(DIRECTORY) != wanted:
        assert time.monotonic() < deadline, irqbalance.banned(DIRECTORY)
        time.sleep(0.1)


def test_it_leaves_cpus_alone_until_they_are_given_back(running):
    deadline = time.monotonic() + 30
    while not list(DIRECTORY.glob("irqbalance*.sock")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    before = irqbalance.banned(DIRECTORY)
    cpu = max(os.sched_getaffinity(0))
    moved = interrupts.to_move(IRQS, {cpu}, {min(os.sched_getaffinity(0))})
    irqbalance.ban(DIRECTORY, {cpu})
    interrupts.move(IRQS, moved)
    until({*before, cpu})
    irqbalance.allow(DIRECTORY, {cpu}, set())
    until(set(before))
    interrupts.move_back(IRQS, moved)
    assert running.poll() is None
