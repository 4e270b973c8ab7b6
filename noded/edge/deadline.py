"""How long a client waits, and how long the core may take so that our own answer arrives first."""

from __future__ import annotations

import time
from dataclasses import dataclass

from grpclib.metadata import Deadline as _HeaderDeadline

from noded.errors import InvalidArgument

# The answer must leave before the client's own timer fires, or the client reports a bare
# "context deadline exceeded" instead of our message with the stage reached. 5 % of the time left,
# within bounds that cover a busy event loop and do not waste a long deadline.
_MARGIN_SHARE = 0.05
_SHORTEST_MARGIN_SECONDS = 0.025
_LONGEST_MARGIN_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Deadline:
    """A fixed point on the monotonic clock, in seconds; None = the client waits for ever."""

    at: float | None = None

    @classmethod
    def of(cls, headers: list[tuple[str, str]], arrived: float | None = None) -> Deadline:
        """Read `grpc-timeout`, which began when the headers arrived, None = now. Raises: InvalidArgument."""
        try:
            parsed = _HeaderDeadline.from_headers(headers)
            if parsed is None:
                return cls()
            return cls((time.monotonic() if arrived is None else arrived) + parsed.time_remaining())
        except (ValueError, OverflowError) as error:
            raise InvalidArgument(f"grpc-timeout: {error}") from error

    def remaining_seconds(self) -> float | None:
        """Time until the client gives up, never negative."""
        return None if self.at is None else max(0.0, self.at - time.monotonic())

    def budget_seconds(self) -> float | None:
        """Time that the core may take: what remains, less a margin for the answer."""
        remaining = self.remaining_seconds()
        if remaining is None:
            return None
        margin = min(max(remaining * _MARGIN_SHARE, _SHORTEST_MARGIN_SECONDS), _LONGEST_MARGIN_SECONDS)
        return remaining - min(margin, remaining / 2)
