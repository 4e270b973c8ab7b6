"""Answers for methods that noded does not offer yet: honest, and the same code everywhere."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from noded.edge.deadline import Deadline
from noded.errors import Unimplemented


def refuse(message: str) -> Callable[[Any, Deadline], Awaitable[bytes]]:
    """A unary method that always answers UNIMPLEMENTED with `message`."""

    async def run(request: Any, deadline: Deadline) -> bytes:
        raise Unimplemented(message)

    return run


def refuse_stream(message: str) -> Callable[[Any, Deadline], AsyncGenerator[bytes, None]]:
    """A streaming method that always answers UNIMPLEMENTED with `message`."""

    async def run(request: Any, deadline: Deadline) -> AsyncGenerator[bytes, None]:
        raise Unimplemented(message)
        yield b""  # makes this a generator

    return run
