"""HTTP for worker threads: urllib3 whose every wait a trio cancel can cut short.

Theory of operation. A blocking exchange runs in a worker thread by `Transport.call`. A socket wait
cannot be interrupted from Python, so on cancellation the call's connection is shut down under it
(`noded.images.leash`): the thread wakes with an error, sees the cancellation and unwinds.

The socket timeout is the stall timeout: a peer that sends nothing for so long is given up, as is one
whose headers are not there after the time for connecting and one stall timeout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import trio

from noded.images.endpoints import CERTS_DIRS, TLSFiles
from noded.images.http_faults import OVERDUE, Fault, Trouble, told_faults
from noded.images.leash import LEASH, Leash
from noded.images.pools import Pools
from noded.images.proxies import Proxies

if TYPE_CHECKING:  # imported with the first request: a daemon that pulls nothing is 3 MB smaller
    import urllib3

CHUNK_BYTES: Final = 256 * 1024  # the most of one read; a larger buffer only misses the CPU's cache
MAX_ERROR_BODY: Final = 64 * 1024  # bytes of an answer read for its error message or to reuse the connection
PROBE_SECONDS: Final = 5.0  # for a connection and TLS handshake with a host that may have no TLS

T = TypeVar("T")


class Reply:
    """An answer whose body is still on the wire. Close it in the thread that opened it."""

    def __init__(self, raw: urllib3.BaseHTTPResponse, leash: Leash, url: str) -> None:
        self._raw, self._leash = raw, leash
        self.url = url
        self.status = raw.status
        self.headers = raw.headers

    def __enter__(self) -> Reply:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def has_length(self) -> bool:
        """Whether the headers tell where the body ends; else it ends with the connection."""
        return "Content-Length" in self.headers or "Transfer-Encoding" in self.headers

    def chunks(self) -> Iterator[bytes]:
        """The body, in the pieces that arrive. Raises: Fault."""
        while True:
            with told_faults():
                chunk = self._raw.read1(CHUNK_BYTES, decode_content=False)
            if not chunk:
                return
            trio.from_thread.check_cancelled()
            yield chunk

    def body(self, limit_bytes: int) -> bytes:
        """The whole body, cut one byte after the limit so that the caller sees the excess."""
        collected = bytearray()
        for chunk in self.chunks():
            collected += chunk
            if len(collected) > limit_bytes:
                break
        return bytes(collected[: limit_bytes + 1])

    def drain(self) -> None:
        """Read a short body to its end, so that the connection can be used again, and close."""
        with self:
            try:
                self.body(MAX_ERROR_BODY)
            except Fault:  # nobody needs these bytes
                return

    def close(self) -> None:
        """Give the connection back when the body is read to its end, else drop it."""
        self._leash.let_go()
        if getattr(self._raw, "length_remaining", None) == 0:
            self._raw.release_conn()
        else:
            self._raw.close()


class Transport:
    """Connections to registries, kept open between calls.

    Args:
        stall_seconds: longest silence of a peer.
        connect_seconds: budget for name look-up and connect, and for a TLS handshake's each step.
        threads: how many calls wait at once; more queue up.
        proxies: none without it; see `Proxies.from_environment`.
    """

    def __init__(
        self,
        *,
        stall_seconds: float = 60.0,
        connect_seconds: float = 15.0,
        threads: int = 64,
        proxies: Proxies | None = None,
        certs_dirs: tuple[Path, ...] = CERTS_DIRS,
        user_agent: str = "",
    ) -> None:
        self._connect_seconds, self._stall_seconds = connect_seconds, stall_seconds
        self._limiter = trio.CapacityLimiter(threads)
        self._proxies = proxies or Proxies()
        self._user_agent = user_agent or f"noded/{_version()}"
        self._pools = Pools(certs_dirs)

    async def call(self, work: Callable[..., T], *args: Any) -> T:
        """Run `work(*args)` in a worker thread, where `open` may be used.

        Cancellation: cuts the call's connection, so that the thread ends within moments.
        """
        leash = Leash()
        failure: Exception | None = None
        values: list[T] = []

        def run() -> T:
            LEASH.set(leash)  # trio runs each call in its own copy of the context
            return work(*args)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(leash.watch)
            try:
                values.append(await trio.to_thread.run_sync(run, limiter=self._limiter))
            except Exception as error:
                failure = error
            finally:
                leash.let_go()
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        return values[0]

    def open(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        *,
        insecure: bool = False,
        probing: bool = False,
        body: bytes | None = None,
        files: TLSFiles | None = None,
    ) -> Reply:
        """Send one request, follow nothing, retry nothing. Only inside `call`.

        Args:
            insecure: accept any certificate.
            probing: the host may not speak TLS at all: do not wait long for it to.
            files: for TLS; None or empty = those of the certificate directories.

        Raises: Fault; InvalidArgument for bad certificate files or a bad proxy URL.
        """
        import urllib3

        trio.from_thread.check_cancelled()
        leash = LEASH.get()
        parsed = urllib3.util.parse_url(url)
        scheme, host = parsed.scheme or "https", parsed.host or ""
        port = parsed.port or (443 if scheme == "https" else 80)
        name = f"{host}:{parsed.port}" if parsed.port else host
        pool = self._pools.of(
            name,
            self._proxies.proxy_for(scheme, host, port),
            (files or TLSFiles()) if scheme == "https" else None,
            insecure=insecure,
        )
        # Where plain HTTP is the other way in, a silent TLS handshake must not use up the whole budget.
        patience = min(self._connect_seconds, PROBE_SECONDS) if probing else self._connect_seconds
        with told_faults(leash), leash.patience(patience + self._stall_seconds):
            raw = pool.request(
                method,
                url,
                body=body,
                headers={"User-Agent": self._user_agent, "Accept-Encoding": "identity", **headers},
                redirect=False,
                retries=False,
                preload_content=False,
                decode_content=False,
                timeout=urllib3.Timeout(connect=patience, read=self._stall_seconds),
            )
        if leash.overdue:  # the headers end where the connection was cut, for all that http.client can see
            raw.close()
            raise Fault(Trouble.STALLED, OVERDUE)
        return Reply(raw, leash, url)

    def close(self) -> None:
        """Close idle connections."""
        self._pools.close()


def _version() -> str:
    try:
        return metadata.version("noded")
    except metadata.PackageNotFoundError:  # run from a checkout
        return "0"
