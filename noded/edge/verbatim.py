"""The bytes of a request as its client sent them, for records that keep it verbatim.

To encode a message again takes longer than all else that the edge does for a create, and loses what this
noded does not know of.
"""

from __future__ import annotations

from contextvars import ContextVar

import betterproto2

_RECEIVED: ContextVar[tuple[betterproto2.Message, bytes] | None] = ContextVar("request", default=None)


def received(message: betterproto2.Message, data: bytes) -> None:
    """Note what the running task serves."""
    _RECEIVED.set((message, data))


def verbatim(message: betterproto2.Message) -> bytes:
    """The bytes that a message came in; of one that did not come just now, its encoding."""
    noted = _RECEIVED.get()
    return noted[1] if noted is not None and noted[0] is message else bytes(message)
