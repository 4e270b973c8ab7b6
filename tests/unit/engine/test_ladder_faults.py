"""What becomes of a cancel that comes late, and of errors of the kernel."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field

import pytest
import trio

from noded.engine.ladder import Rung, climb, descend
from noded.errors import ResourceExhausted, Unavailable


@dataclass
class Thing:
    id: str = "0123456789abcdef"
    stage: str = ""
    steps: list[str] = field(default_factory=list)


def test_a_cancel_during_the_last_rung_takes_everything_down():
    thing, scope = Thing(), trio.CancelScope()

    async def up(subject: Thing) -> None:
        subject.steps.append("up")
        scope.cancel()

    async def down(subject: Thing) -> None:
        subject.steps.append("down")

    async def main() -> None:
        with scope:
            await climb([Rung("only", up, down)], thing)
        assert scope.cancelled_caught

    trio.run(main)
    assert thing.steps == ["up", "down"]


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (errno.ENOSPC, ResourceExhausted, "free space or inodes on the file system of /full/place"),
        (errno.EDQUOT, ResourceExhausted, "free space"),
        (errno.EIO, Unavailable, "check the file system of /full/place"),
        (errno.EROFS, Unavailable, "check the file system"),
        (errno.EBUSY, Unavailable, "/full/place"),
    ],
)
def test_an_error_of_the_kernel_says_what_to_do(number, kind, words):
    async def fail(_: Thing) -> None:
        raise OSError(number, "words of the kernel", "/full/place")

    async def main() -> None:
        await descend([Rung("disk", fail, fail)], Thing())

    with pytest.raises(kind, match=words) as caught:
        trio.run(main)
    assert "undo disk" in str(caught.value)
