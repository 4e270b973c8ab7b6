"""One-time tokens: what the URL of a stream carries instead of a request.

Anybody who can reach the streaming server may try tokens, so they are unguessable, work once, and
soon expire. The table keeps digests, so that a lookup tells nothing about tokens by its timing.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from noded.errors import ResourceExhausted

T = TypeVar("T")

LIFETIME_SECONDS = 60.0
CAPACITY = 1000
_TOKEN_BYTES = 32
_LENGTH_LIMIT = 128  # characters that are looked at at all


class Tokens(Generic[T]):
    """Requests that wait for their client.

    Args:
        clock: monotonic seconds.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        capacity: int = CAPACITY,
        lifetime_seconds: float = LIFETIME_SECONDS,
    ) -> None:
        self._clock = clock
        self._capacity = capacity
        self._lifetime_seconds = lifetime_seconds
        self._waiting: OrderedDict[bytes, tuple[float, T]] = OrderedDict()

    def __len__(self) -> int:
        self._expire()
        return len(self._waiting)

    def issue(self, kind: str, request: T) -> str:
        """Keep a request; return its token, which is good for one use under `kind`.

        Raises: ResourceExhausted when too many wait.
        """
        self._expire()
        if len(self._waiting) >= self._capacity:
            raise ResourceExhausted(
                f"{self._capacity} streams wait for their clients already: "
                f"use their URLs or wait {self._lifetime_seconds:g} s until they expire"
            )
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        self._waiting[_digest(kind, token)] = (self._clock() + self._lifetime_seconds, request)
        return token

    def redeem(self, kind: str, token: str) -> T | None:
        """The request of a token, once; None for a token that is unknown, used or expired."""
        self._expire()
        if len(token) > _LENGTH_LIMIT:
            return None
        found = self._waiting.pop(_digest(kind, token), None)
        return None if found is None else found[1]

    def _expire(self) -> None:
        now = self._clock()
        while self._waiting:
            oldest = next(iter(self._waiting))  # all live equally long, so the order is that of expiry
            if self._waiting[oldest][0] > now:
                break
            del self._waiting[oldest]


def _digest(kind: str, token: str) -> bytes:
    return hashlib.sha256(f"{kind}/{token}".encode("utf-8", "surrogatepass")).digest()
