"""What the server serves: a table of RPC methods."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import betterproto2

from noded.edge.deadline import Deadline

Request = TypeVar("Request", bound=betterproto2.Message)
Response = TypeVar("Response", bound=betterproto2.Message)


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC method. All take a single request message; none streams requests.

    Args:
        path: as in HTTP/2, `/package.Service/Name`.
        run: (request, deadline) -> awaitable of a response, or async generator of responses when
            `streaming`. A response may also be its encoded bytes.
    """

    path: str
    request: type[betterproto2.Message]
    response: type[betterproto2.Message]
    run: Callable[[Any, Deadline], Any]
    streaming: bool = False

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


def unary(
    service: str,
    name: str,
    request: type[Request],
    response: type[Response],
    run: Callable[[Request, Deadline], Awaitable[Response | bytes]],
) -> Method:
    """A method that answers with one message."""
    return Method(f"/{service}/{name}", request, response, run)


def server_stream(
    service: str,
    name: str,
    request: type[Request],
    response: type[Response],
    run: Callable[[Request, Deadline], AsyncGenerator[Response | bytes, None]],
) -> Method:
    """A method that answers with any number of messages."""
    return Method(f"/{service}/{name}", request, response, run, streaming=True)


def table(methods: Iterable[Method]) -> dict[str, Method]:
    """Index methods by path. Raises: ValueError when two have the same."""
    result: dict[str, Method] = {}
    for method in methods:
        if method.path in result:
            raise ValueError(f"two methods for {method.path}")
        result[method.path] = method
    return result
