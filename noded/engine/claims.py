"""Finished creates that no client knows of.

A create outlives the client that asked for it. When nobody was told of its result, and nobody names it
within a while, it is taken down again: kubelet retries under the same key and would find it then.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Generic, Protocol, TypeVar

import structlog
import trio

from noded.engine.operations import CALLER

log = structlog.get_logger(__name__)


class Claim:
    """What clients know of one object.

    Args:
        named: whether a client has named it, or may have: what a restart finds was told to somebody.
    """

    __slots__ = ("answered", "named")

    def __init__(self, *, named: bool = True) -> None:
        self.named = named
        self.answered = 0  # how many callers of its create were told of it

    @property
    def held(self) -> bool:
        """Whether some client knows of it."""
        return self.named or self.answered > 0


class Claimable(Protocol):
    """A pod sandbox or a container."""

    claim: Claim

    @property
    def id(self) -> str: ...


T = TypeVar("T", bound=Claimable)


class Claims(Generic[T]):
    """Hands out the results of creates, and removes those that nobody got.

    Args:
        noun: what T is, for the log.
        wait_seconds: how long a result waits for a retry whose first client is gone.
        present: whether the very object still exists.
        remove: takes it down; its errors are logged.
    """

    def __init__(
        self,
        noun: str,
        nursery: trio.Nursery,
        wait_seconds: float,
        *,
        present: Callable[[T], bool],
        remove: Callable[[T], Awaitable[None]],
    ) -> None:
        self._noun = noun
        self._nursery = nursery
        self._wait_seconds = wait_seconds
        self._present = present
        self._remove = remove

    def answer(self, made: T) -> None:
        """Note that this caller gets the result, or see to it that an unwanted one goes away."""
        caller = CALLER.get()
        if caller is not None and caller.gone:
            self._nursery.start_soon(self._remove_unclaimed, made, self._wait_seconds)
            return
        made.claim.answered += 1
        if caller is not None:
            caller.left = partial(self._disclaim, made)

    def abandon(self, made: T) -> None:
        """The last client left just when the create had succeeded."""
        self._nursery.start_soon(self._remove_unclaimed, made, 0.0)

    async def _disclaim(self, made: T) -> None:
        """A client cancelled just before it could be told its result."""
        made.claim.answered -= 1
        await self._remove_unclaimed(made, 0.0)

    async def _remove_unclaimed(self, made: T, after_seconds: float) -> None:
        await trio.sleep(after_seconds)
        if made.claim.held or not self._present(made):
            return
        log.info(f"removing a {self._noun} that no client claimed", id=made.id)
        try:
            await self._remove(made)
        except Exception as error:
            log.warning(f"unclaimed {self._noun} not removed", id=made.id, error=str(error))
