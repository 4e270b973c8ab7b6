"""Stopping or removing all containers of a pod."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from noded.engine.containers import _for_each


def test_a_container_that_cannot_be_stopped_keeps_no_other_from_being_stopped():
    done = []

    async def act(name: str) -> None:
        if name == "stubborn":
            raise OSError("told to fail")
        await trio.testing.wait_all_tasks_blocked()
        done.append(name)

    async def main() -> None:
        with pytest.raises(OSError, match="told to fail"):
            await _for_each(["stubborn", "first", "second"], act)

    trio.run(main)
    assert sorted(done) == ["first", "second"]
