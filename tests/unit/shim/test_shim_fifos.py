"""The writing end of an input whose reader comes late, or never."""

from __future__ import annotations

import os

import pytest
import trio
import trio.testing

from noded.errors import FailedPrecondition
from noded.runtimes import shim_fifos
from noded.runtimes.shim_fifos import await_writer, make_fifo


@pytest.fixture
def fifo(tmp_path):
    make_fifo(tmp_path / "stdin")
    return tmp_path / "stdin"


def test_a_reader_that_comes_late_gets_everything(fifo):
    readers = []

    async def main():
        async with trio.open_nursery() as nursery:

            async def read_later():
                await trio.testing.wait_all_tasks_blocked()
                readers.append(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK))

            nursery.start_soon(read_later)
            with trio.fail_after(20):
                writer = await await_writer(fifo)
        os.write(writer, b"input")
        os.close(writer)
        assert os.read(readers[0], 100) == b"input"
        os.close(readers[0])

    before = len(os.listdir("/proc/self/fd"))
    trio.run(main)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("there", [True, False])
def test_a_reader_that_never_comes_is_an_error_in_bounded_time(fifo, monkeypatch, there):
    monkeypatch.setattr(shim_fifos, "_READER_SECONDS", 0.05)
    if not there:
        fifo.unlink()

    async def main():
        with trio.fail_after(20), pytest.raises(FailedPrecondition, match="nobody reads"):
            await await_writer(fifo)

    before = len(os.listdir("/proc/self/fd"))
    trio.run(main)
    assert len(os.listdir("/proc/self/fd")) == before
