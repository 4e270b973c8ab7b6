"""Sending finished calls to an OpenTelemetry collector, by OTLP over HTTP. No call ever waits for it."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import structlog
import trio

from noded.errors import InvalidArgument, NodedError, Unavailable
from noded.model.timeline import Call
from noded.wire import otlp

if TYPE_CHECKING:
    import urllib3

log = structlog.get_logger(__name__)

_QUEUE_CALLS = 2048
_BATCH_CALLS = 256
_SEND_SECONDS = 10.0
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 30.0
_RETRIED = frozenset({429, 502, 503, 504})  # OTLP/HTTP, "Retryable Response Codes"


class Exporter:
    """A bounded queue and its sender. A service: `run` must be running.

    Args:
        endpoint: `http://HOST:PORT` or a whole URL.

    Raises: InvalidArgument for an endpoint that is no HTTP URL.
    """

    def __init__(self, endpoint: str) -> None:
        self.url = traces_url(endpoint, "tracing.endpoint")
        self._queue: deque[Call] = deque()
        self._waiting = trio.Event()
        self.sent = 0
        self.dropped = 0
        self._failing = False

    def offer(self, calls: Sequence[Call]) -> None:
        """Take finished calls, as far as there is room. Called in the core; returns at once."""
        room = _QUEUE_CALLS - len(self._queue)
        self._queue.extend(calls[:room])
        self.dropped += max(0, len(calls) - room)
        if self._queue:
            self._waiting.set()

    async def run(self) -> None:
        """Send until cancelled. Cancellation: what waits is lost, a sending in progress is left alone."""
        import urllib3

        with urllib3.PoolManager(num_pools=1, maxsize=1, retries=False) as pool:
            pause = _FIRST_PAUSE_SECONDS
            while True:
                await self._waiting.wait()
                batch = [self._queue[index] for index in range(min(_BATCH_CALLS, len(self._queue)))]
                try:
                    retry = await trio.to_thread.run_sync(
                        partial(post, pool, self.url, batch), abandon_on_cancel=True
                    )
                except NodedError as error:
                    self._tell(str(error))
                    retry, lost = False, True
                else:
                    lost = False
                if retry:
                    self._tell(f"{self.url} does not take traces now")
                    await trio.sleep(pause)
                    pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
                    continue
                pause = _FIRST_PAUSE_SECONDS
                for _ in batch:
                    self._queue.popleft()
                if lost:
                    self.dropped += len(batch)
                else:
                    self._failing = False
                    self.sent += len(batch)
                if not self._queue:
                    self._waiting = trio.Event()

    def _tell(self, problem: str) -> None:
        if not self._failing:
            log.warning("traces are not delivered", error=problem)
        self._failing = True


def post(pool: urllib3.PoolManager, url: str, calls: Sequence[Call]) -> bool:
    """Send calls once. Blocks. Returns whether it is worth trying again.

    Raises: Unavailable when the receiver refuses them for good.
    """
    import urllib3

    resource = {
        "service.name": "noded",
        "service.version": version("noded"),
        "host.name": socket.gethostname(),
    }
    body = otlp.encode(calls, resource, version("noded"))
    try:
        answer = pool.request(
            "POST", url, body=body, headers={"Content-Type": otlp.CONTENT_TYPE}, timeout=_SEND_SECONDS,
            redirect=False,
        )  # fmt: skip
    except urllib3.exceptions.HTTPError:
        return True
    if answer.status in _RETRIED:
        return True
    if not 200 <= answer.status < 300:
        said = answer.data[:200].decode("utf-8", "replace").strip()
        raise Unavailable(f"{url} refuses traces: HTTP status {answer.status} {said}".rstrip())
    return False


def traces_url(endpoint: str, field: str) -> str:
    """The URL for traces: `/v1/traces` is the path if the endpoint has none (OTLP/HTTP).

    Raises: InvalidArgument naming the field.
    """
    try:
        parts = urlsplit(endpoint)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise InvalidArgument(f"{field}: {endpoint!r} is not a URL such as http://127.0.0.1:4318")
    return urlunsplit(parts._replace(path=parts.path if parts.path.strip("/") else "/v1/traces"))
