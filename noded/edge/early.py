"""Calls that arrive before the core is there.

Importing the daemon and opening its stores takes some hundred milliseconds, in which a kubelet that
has lost its runtime asks for nothing but lists. They are answered from the database as it is
(`noded.store.glance`), with entries made of the stored requests: a list entry repeats parts of them
byte by byte, so that no message class is needed. All other calls wait until the core serves, but never
for ever: a core that does not come is told to clients without a deadline, too.

Nothing can change a record meanwhile: changes wait, too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from grpclib.const import Status
from h2.exceptions import H2Error

from noded.edge.deadline import Deadline
from noded.edge.framing import Answer, read_message
from noded.edge.status import outcome_of
from noded.errors import DeadlineExceeded, NodedError, Unavailable
from noded.model.lifecycle import ContainerIntent, SandboxIntent, container_seen, sandbox_seen
from noded.wire.protobuf import LENGTH, number, record, scan

if TYPE_CHECKING:
    from grpclib.protocol import Stream as H2Stream

    from noded.edge.call import Call, Headers
    from noded.store.glance import ContainerRow, Glance, SandboxRow

LIST_PODS = "/runtime.v1.RuntimeService/ListPodSandbox"
LIST_CONTAINERS = "/runtime.v1.RuntimeService/ListContainers"

# A list request without a filter, and one with an empty filter. What others choose, the core knows.
_EVERYTHING = (b"", b"\x0a\x00")


def answers(seen: Glance, boot_id: str) -> dict[str, bytes]:
    """The whole lists, by path of their methods.

    Args:
        boot_id: of the node now; what an earlier boot has run is not running.

    Raises: ValueError when a stored request is none.
    """
    pods = (record(1, _sandbox(row, boot_id)) for row in seen.sandboxes if SandboxIntent(row.intent).made)
    containers = (
        record(1, _container(row, boot_id)) for row in seen.containers if ContainerIntent(row.intent).made
    )
    return {LIST_PODS: b"".join(pods), LIST_CONTAINERS: b"".join(containers)}


class Gate:
    """Holds calls back until `open`, but for lists of everything.

    Args:
        known: answers by path of the method.
        limit_bytes: size of the largest message.
        held_seconds: how long a call is held back at most.
    """

    def __init__(self, known: Mapping[str, bytes], limit_bytes: int, held_seconds: float) -> None:
        self.known = known
        self.limit_bytes = limit_bytes
        self.held_seconds = held_seconds
        self.answered = 0
        self.asked = asyncio.Event()  # all of them were answered once
        self._unasked = set(known)
        if not known:  # nobody is to be waited for
            self.asked.set()
        self.opened = asyncio.Event()
        self.make: Callable[..., Call] | None = None

    def count(self, path: str) -> None:
        """Note an answer."""
        self.answered += 1
        self._unasked.discard(path)
        if not self._unasked:
            self.asked.set()

    def open(self, make: Callable[..., Call]) -> None:
        """From now on calls are made by `make(stream, headers, request=..., arrived=...)`."""
        self.make = make
        self.known = {}
        self.opened.set()


class EarlyCall:
    """An RPC that arrived while the gate was closed; an ordinary one once it is open."""

    def __init__(self, gate: Gate, stream: H2Stream, headers: Headers) -> None:
        self._gate = gate
        self._stream = stream
        self._headers = headers
        self._arrived = time.monotonic()
        self._call: Call | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def streaming(self) -> bool:
        return self._call is not None and self._call.streaming

    def start(self) -> asyncio.Task[None]:
        """Serve the call in a task of its own."""
        path = next((value for name, value in self._headers if name == ":path"), "")
        self._task = asyncio.get_running_loop().create_task(self._serve(path), name=path)
        return self._task

    def cancel(self) -> None:
        """The client is gone."""
        if self._task is not None:
            self._task.cancel()

    def end(self) -> None:
        """The server stops."""
        if self._call is not None:
            self._call.end()
        else:
            self.cancel()

    async def _serve(self, path: str) -> None:
        answer = Answer(self._stream, self._gate.limit_bytes)
        try:
            deadline = Deadline.of(self._headers, self._arrived)
            budget = deadline.budget_seconds()
            held = self._gate.held_seconds
            try:
                async with asyncio.timeout(held if budget is None else min(budget, held)):
                    request = await self._read_known(path)
                    if request in _EVERYTHING and (known := self._gate.known.get(path)) is not None:
                        await answer.send(known)
                        await answer.finish(Status.OK)
                        self._gate.count(path)
                        return
                    await self._gate.opened.wait()
            except TimeoutError:
                if budget is not None and budget <= held:
                    raise DeadlineExceeded("noded was starting: ask again") from None
                raise Unavailable(
                    f"noded has been starting for {held:g} s: see its log, or try again"
                ) from None
        except NodedError as error:  # not a request, too long an answer, or nobody to serve it
            outcome = outcome_of(error)
            with suppress(H2Error):
                await answer.finish(outcome.status, outcome.message)
            return
        except H2Error:  # the client has gone
            return
        assert self._gate.make is not None
        self._call = self._gate.make(self._stream, self._headers, request=request, arrived=self._arrived)
        await self._call.serve()

    async def _read_known(self, path: str) -> bytes | None:
        """The request, None when there is no answer to it before the core serves."""
        if path not in self._gate.known:
            return None
        return await read_message(self._stream, self._gate.limit_bytes)


def _sandbox(row: SandboxRow, boot_id: str) -> bytes:
    """A PodSandbox message: metadata, labels and annotations as the request has them."""
    config = _parts(_only(row.request, 1), {1, 6, 7})
    state = sandbox_seen(SandboxIntent(row.intent), same_boot=row.boot_id == boot_id)
    return b"".join(
        (
            record(1, row.id.encode()),
            *(record(2, part) for part in config[1]),
            number(3, state),
            number(4, row.created_at_ns),
            *(record(5, part) for part in config[6]),
            *(record(6, part) for part in config[7]),
            record(7, row.handler.encode()),
        )
    )


def _container(row: ContainerRow, boot_id: str) -> bytes:
    """A Container message, made in the same way."""
    config = _parts(_only(row.request, 2), {1, 2, 9, 10})
    image = _parts(b"".join(config[2]), {1, 18})
    written = image[18][-1] if image[18] else b""  # the name that a person wrote, if it is known
    shown = written or (image[1][-1] if image[1] else b"")
    state = container_seen(ContainerIntent(row.intent), exited=row.exited, same_boot=row.boot_id == boot_id)
    image_id = row.image_id.encode()
    return b"".join(
        (
            record(1, row.id.encode()),
            record(2, row.sandbox_id.encode()),
            *(record(3, part) for part in config[1]),
            record(4, record(1, shown) + (record(18, written) if written else b"")),
            record(5, image_id),
            number(6, state),
            number(7, row.created_at_ns),
            *(record(8, part) for part in config[9]),
            *(record(9, part) for part in config[10]),
            record(10, image_id),
        )
    )


def _only(message: bytes, field: int) -> bytes:
    """A submessage; its parts, if it has several, are merged by being joined."""
    return b"".join(_parts(message, {field})[field])


def _parts(message: bytes, wanted: set[int]) -> dict[int, list[bytes]]:
    found: dict[int, list[bytes]] = {field: [] for field in wanted}
    for field, wire, value in scan(message):
        if field in wanted and wire == LENGTH:
            found[field].append(value)
    return found
