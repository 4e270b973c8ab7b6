"""The bytes of a request as its client sent them, for records that keep it verbatim.

To encode a message again takes longer than all else that the edge does for a create, and loses what this
noded does not know of.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import betterproto2

_Noted = list[tuple[betterproto2.Message, bytes]]
_RECEIVED: ContextVar[_Noted | None] = ContextVar("request", default=None)


@contextmanager
def received(message: betterproto2.Message, data: bytes) -> Iterator[None]:
    """Note what the running task serves in this block.

    Tasks that it starts get its context, and some live as long as a container: hence a list that is emptied.
    """
    noted: _Noted = [(message, data)]
    _RECEIVED.set(noted)
    try:
        yield
    finally:
        noted.clear()


def verbatim(message: betterproto2.Message) -> bytes:
    """The bytes that a message came in; of one that is not served just now, its encoding."""
    for served, data in _RECEIVED.get() or ():
        if served is message:
            return data
    return bytes(message)
