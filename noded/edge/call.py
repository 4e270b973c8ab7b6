"""One RPC from its headers to its trailers."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

import structlog
from grpclib.const import Status
from grpclib.protocol import Stream as H2Stream
from h2.exceptions import H2Error

from noded.edge.codec import Codec
from noded.edge.deadline import Deadline
from noded.edge.framing import Answer, read_message
from noded.edge.method import Method
from noded.edge.status import Outcome, outcome_of
from noded.edge.verbatim import received
from noded.errors import DeadlineExceeded, Unavailable, Unimplemented
from noded.tracing.spans import Record, wait

log = structlog.get_logger(__name__)

Headers = list[tuple[str, str]]


class Observer(Protocol):
    """Told of each call that has ended; must be quick and must not raise."""

    def __call__(self, method: str, code: str, seconds: float, *, streaming: bool) -> None: ...


_OK = Outcome(Status.OK, "")
_CLIENT_GONE = Outcome(Status.CANCELLED, "the client is gone")
_SHUTTING_DOWN = "noded is shutting down: try again"
_FAREWELL_SECONDS = 1.0
_CONTENT_TYPES = frozenset({"application/grpc", "application/grpc+proto"})


@dataclass(frozen=True, slots=True)
class Service:
    """What every call of a server shares.

    Args:
        limit_bytes: size of the largest message, in either direction.
        observe: told of each call that has ended.
        record: begins the record of a call (method, `traceparent` of the client), if it is to have one.
    """

    methods: Mapping[str, Method]
    codec: Codec
    limit_bytes: int
    observe: Observer | None = None
    record: Callable[[str, str], Record | None] | None = None


class Call:
    """An RPC in progress. `end` stops it for the server's own reasons.

    Args:
        request: its message, if that has been read.
        arrived: when it came, on the monotonic clock; None = now.
    """

    def __init__(
        self,
        service: Service,
        stream: H2Stream,
        headers: Headers,
        *,
        accepting: bool,
        request: bytes | None = None,
        arrived: float | None = None,
    ) -> None:
        self._service = service
        self._headers = headers
        self._stream = stream
        self._answer = Answer(stream, service.limit_bytes)
        self._path = next((value for name, value in headers if name == ":path"), "")
        self._method = service.methods.get(self._path)
        self._accepting = accepting
        self._request = request
        self._arrived = arrived
        self._ending = False
        self._task: asyncio.Task[None] | None = None

    @property
    def streaming(self) -> bool:
        return self._method is not None and self._method.streaming

    def start(self) -> asyncio.Task[None]:
        """Serve the call in a task of its own."""
        self._task = asyncio.get_running_loop().create_task(self.serve(), name=self._path)
        return self._task

    def cancel(self) -> None:
        """The client is gone: cancel the operation."""
        if self._task is not None:
            self._task.cancel()

    def end(self) -> None:
        """The server stops: cancel the operation and tell the client to try again."""
        self._ending = True
        self.cancel()

    async def serve(self) -> None:
        """Serve the call in the running task."""
        self._task = asyncio.current_task()
        # A task has its own context, so nothing is to be unbound.
        structlog.contextvars.bind_contextvars(op=secrets.token_hex(4))
        started = time.monotonic()
        record = self._record()
        outcome = _CLIENT_GONE
        try:
            refusal = self._http_refusal()
            if refusal is not None:
                outcome = Outcome(Status.UNKNOWN, f"not gRPC: HTTP status {refusal}")
                await self._answer.refuse(refusal)
                return
            outcome = await self._run()
            if self._answer.open:
                # A shutdown does not wait for a client that reads nothing.
                async with asyncio.timeout(_FAREWELL_SECONDS if self._ending else None):
                    await self._answer.finish(outcome.status, outcome.message)
            else:
                outcome = _CLIENT_GONE
        except (H2Error, TimeoutError):  # the stream or connection closed under our answer
            outcome = _CLIENT_GONE
        finally:
            self._answer.abandon()
            if record is not None:
                failed = outcome.status is not Status.OK
                record.finish(f"{outcome.status.name}: {outcome.message}" if failed else "")
            self._log(outcome, time.monotonic() - started)

    def _record(self) -> Record | None:
        record, method = self._service.record, self._method
        if record is None or method is None or method.streaming:
            return None
        header = next((value for name, value in self._headers if name == "traceparent"), "")
        return record(method.name, header)

    def _http_refusal(self) -> int | None:
        """The HTTP status for a request that is not gRPC, None for one that is."""
        headers = dict(self._headers)
        if headers.get(":method") != "POST":
            return 405
        content_type = headers.get("content-type", "").partition(";")[0].strip()
        return None if content_type in _CONTENT_TYPES else 415

    async def _run(self) -> Outcome:
        try:
            await self._respond()
        except asyncio.CancelledError:
            if not self._ending:
                raise
            return Outcome(Status.UNAVAILABLE, _SHUTTING_DOWN)
        except H2Error:
            raise
        except Exception as error:
            outcome = outcome_of(error)
            if outcome.defect:
                log.error("defect", method=self._path, exc_info=error)
            return outcome
        return _OK

    async def _respond(self) -> None:
        method = self._method
        if method is None:
            raise Unimplemented(f"unknown method {self._path}")
        if not self._accepting:
            raise Unavailable(_SHUTTING_DOWN)
        deadline = Deadline.of(self._headers, self._arrived)
        try:
            with wait("read the request"):
                data = self._request
                if data is None:
                    async with asyncio.timeout(deadline.remaining_seconds()):
                        data = await read_message(self._stream, self._service.limit_bytes)
                codec = self._service.codec
                request = codec.decode(data, method.request)
        except TimeoutError:
            raise DeadlineExceeded("the deadline passed before the request had arrived") from None
        with received(request, data):
            if method.streaming:
                await self._answer.begin()
                async with aclosing(method.run(request, deadline)) as responses:
                    async for response in responses:
                        await self._answer.send(codec.encode(response, method.response))
            else:
                response = await method.run(request, deadline)
                await self._answer.send(codec.encode(response, method.response))

    def _log(self, outcome: Outcome, seconds: float) -> None:
        if self._service.observe is not None:
            name = self._method.name if self._method else "unknown"
            self._service.observe(name, outcome.status.name, seconds, streaming=self.streaming)
        quiet = outcome.status in (Status.OK, Status.CANCELLED)
        level = log.debug if quiet else log.info
        details = {"error": outcome.message} if outcome.message else {}
        level(
            "rpc",
            method=self._method.name if self._method else self._path,
            code=outcome.status.name,
            duration_ms=round(seconds * 1000, 1),
            **details,
        )
