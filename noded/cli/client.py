"""A connection to the daemon's socket: CRI and Admin calls with betterproto messages over grpclib."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Generator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TypeVar

from betterproto2 import Message
from grpclib.client import Channel, UnaryStreamMethod, UnaryUnaryMethod
from grpclib.config import Configuration
from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError

from noded.edge.codec import Codec
from noded.errors import DeadlineExceeded, InvalidArgument, NodedError, PermissionDenied, Unavailable

QUERY_SECONDS = 10.0  # deadline of calls that the daemon answers from memory

Result = TypeVar("Result")
Reply = TypeVar("Reply", bound=Message)


def query_seconds(timeout: float | None) -> float:
    """Deadline of such a call: what `--timeout` says, if it was given."""
    return QUERY_SECONDS if timeout is None else timeout


class CallFailed(NodedError):
    """The daemon answered with an error; the message is the daemon's own."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message or status.name)
        self.status = status


class Daemon:
    """An open connection. Every call raises the classes of `failures`."""

    def __init__(self, address: str) -> None:
        """`address` is `unix:///PATH` or `/PATH`. Raises InvalidArgument for anything else."""
        self.address = address
        path = address.removeprefix("unix://")
        if not path.startswith("/"):
            raise InvalidArgument(f"--address {address}: expected unix:///PATH of the daemon's socket")
        # A kubelet accepts 16 MiB; images with thousands of tags fit easily.
        config = Configuration(http2_connection_window_size=1 << 24, http2_stream_window_size=1 << 24)
        self._channel = Channel(path=path, codec=Codec(), config=config)

    async def __aenter__(self) -> Daemon:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    async def runtime(
        self, method: str, request: Message, reply: type[Reply], timeout: float | None = QUERY_SECONDS
    ) -> Reply:
        """Call a method of the CRI RuntimeService; `timeout` in seconds, None = no deadline."""
        return await self._call(f"/runtime.v1.RuntimeService/{method}", request, reply, timeout)

    async def image(
        self, method: str, request: Message, reply: type[Reply], timeout: float | None = QUERY_SECONDS
    ) -> Reply:
        """Call a method of the CRI ImageService."""
        return await self._call(f"/runtime.v1.ImageService/{method}", request, reply, timeout)

    async def admin(
        self, method: str, request: Message, reply: type[Reply], timeout: float | None = QUERY_SECONDS
    ) -> Reply:
        """Call a method of noded's Admin service."""
        return await self._call(f"/noded.admin.v1.Admin/{method}", request, reply, timeout)

    def admin_stream(self, method: str, request: Message, reply: type[Reply]) -> AsyncGenerator[Reply]:
        """Call a streaming method of noded's Admin service; closing the generator ends the call."""
        return self._stream(f"/noded.admin.v1.Admin/{method}", request, reply)

    def runtime_stream(self, method: str, request: Message, reply: type[Reply]) -> AsyncGenerator[Reply]:
        """Call a streaming method of the CRI RuntimeService; closing the generator ends the call."""
        return self._stream(f"/runtime.v1.RuntimeService/{method}", request, reply)

    async def _stream(self, path: str, request: Message, reply: type[Reply]) -> AsyncGenerator[Reply]:
        call: UnaryStreamMethod[Any, Reply] = UnaryStreamMethod(self._channel, path, type(request), reply)
        with failures(self.address):
            async with call.open() as stream:
                await stream.send_message(request, end=True)
                async for message in stream:
                    yield message

    async def _call(self, path: str, request: Message, reply: type[Reply], timeout: float | None) -> Reply:
        method: UnaryUnaryMethod[Any, Reply] = UnaryUnaryMethod(self._channel, path, type(request), reply)
        with failures(self.address):
            return await method(request, timeout=timeout)


@contextmanager
def failures(address: str) -> Generator[None]:
    """Translate what a call raises into NodedErrors whose first line tells the operator what is wrong.

    Raises: CallFailed when the daemon answered with an error, DeadlineExceeded when it did not
    answer in time, Unavailable or PermissionDenied when it cannot be reached.
    """
    try:
        yield
    except GRPCError as error:
        raise CallFailed(error.status, error.message or "") from error
    except TimeoutError as error:
        raise DeadlineExceeded(f"no answer from {address} in time (see --timeout)") from error
    except FileNotFoundError as error:
        raise Unavailable(f"cannot reach noded: {address} does not exist; is the daemon running?") from error
    except PermissionError as error:
        raise PermissionDenied(f"cannot reach noded: no permission for {address}; run as root") from error
    except ConnectionRefusedError as error:
        raise Unavailable(
            f"cannot reach noded: nothing listens at {address}; is the daemon running?"
        ) from error
    except (StreamTerminatedError, OSError) as error:
        raise Unavailable(f"the connection to {address} broke: {error}") from error


def wait_for(call: Coroutine[Any, Any, Result]) -> Result:
    """Run one command's calls to their end and return the result."""
    return asyncio.run(call)
