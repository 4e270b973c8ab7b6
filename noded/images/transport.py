"""HTTP for worker threads: urllib3 whose every wait a trio cancel can cut short.

Theory of operation. A blocking exchange runs in a worker thread by `Transport.call`. A socket wait
cannot be interrupted from Python, so on cancellation the call's connection is shut down under it
(`noded.images.leash`): the thread wakes with an error, sees the cancellation and unwinds.

The socket timeout is the stall timeout: a peer that sends nothing for so long is given up, as is one
whose headers are not there after the time for connecting and one stall timeout.
"""

from __future__ import annotations

import errno
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import trio

from noded.errors import InvalidArgument
from noded.images.endpoints import CERTS_DIRS, TLSFiles, tls_files
from noded.images.leash import LEASH, Leash
from noded.images.proxies import Proxies

if TYPE_CHECKING:  # imported with the first request: a daemon that pulls nothing is 3 MB smaller
    import urllib3

CHUNK_BYTES: Final = 256 * 1024  # the most of one read; a larger buffer only misses the CPU's cache
MAX_ERROR_BODY: Final = 64 * 1024  # bytes of an answer read for its error message or to reuse the connection
PROBE_SECONDS: Final = 5.0  # for a connection and TLS handshake with a host that may have no TLS
MAX_POOLS: Final = 64  # hosts whose connections are kept open
OVERDUE: Final = "did not begin its answer in time"

T = TypeVar("T")


class Trouble(StrEnum):
    """What kind of failure an exchange met."""

    UNREACHABLE = "unreachable"  # no connection: name, route, refused, timeout
    STALLED = "stalled"  # no byte within the stall timeout
    DROPPED = "dropped"  # the connection ended before the answer did
    CERTIFICATE = "certificate"  # TLS says the peer is not who it should be
    PROTOCOL = "protocol"  # the peer does not speak TLS or HTTP


class Fault(Exception):
    """An exchange failed below HTTP. Never leaves `noded.images`: the client turns it into an error."""

    def __init__(self, trouble: Trouble, detail: str) -> None:
        super().__init__(detail)
        self.trouble = trouble


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
            with _faults():
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


@dataclass(frozen=True, slots=True)
class _PoolKey:
    host: str
    insecure: bool
    proxy: str
    files: tuple[tuple[Path, int], ...]  # certificate files with their mtime_ns, so that a change is seen


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
        self._certs_dirs = certs_dirs
        self._user_agent = user_agent or f"noded/{_version()}"
        self._pools: dict[_PoolKey, urllib3.PoolManager] = {}
        self._lock = threading.Lock()

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
        pool = self._pool(
            name,
            self._proxies.proxy_for(scheme, host, port),
            (files or TLSFiles()) if scheme == "https" else None,
            insecure=insecure,
        )
        # Where plain HTTP is the other way in, a silent TLS handshake must not use up the whole budget.
        patience = min(self._connect_seconds, PROBE_SECONDS) if probing else self._connect_seconds
        with _faults(leash), leash.patience(patience + self._stall_seconds):
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
        with self._lock:
            pools, self._pools = self._pools, {}
        for manager in pools.values():
            _close_idle(manager)

    def _pool(self, host: str, proxy: str, files: TLSFiles | None, *, insecure: bool) -> urllib3.PoolManager:
        """Connections to a host with these certificates; None = without TLS."""
        if files is None:
            files = TLSFiles()
        elif files == TLSFiles():
            files = tls_files(host, self._certs_dirs)
        names = [*files.authorities, *(name for pair in files.client for name in pair)]
        key = _PoolKey(host if names else "", insecure, proxy, tuple((name, _mtime(name)) for name in names))
        with self._lock:
            pool = self._pools.get(key)
            if pool is None:
                if len(self._pools) >= MAX_POOLS:
                    _close_idle(self._pools.pop(next(iter(self._pools))))
                pool = self._pools[key] = _new_pool(proxy, _tls_context(files, insecure=insecure))
        return pool


def _close_idle(manager: urllib3.PoolManager) -> None:
    """Close the connections that nobody uses; PoolManager.clear() leaves them to the garbage collector."""
    for key in manager.pools.keys():  # noqa: SIM118 # not a dict: it cannot be iterated
        if (pool := manager.pools.get(key)) is not None:
            pool.close()
    manager.clear()


def _new_pool(proxy: str, context: ssl.SSLContext) -> urllib3.PoolManager:
    import urllib3

    from noded.images.leashed_pools import PlainPool, TLSPool

    # An operator asked for it with `insecure = true`; saying so at each request helps nobody.
    urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    options: dict[str, Any] = {"num_pools": 16, "maxsize": 16, "ssl_context": context}
    if context.verify_mode == ssl.CERT_NONE:
        options |= {"cert_reqs": "CERT_NONE", "assert_hostname": False}
    if not proxy:
        manager = urllib3.PoolManager(**options)
    else:
        parsed = urllib3.util.parse_url(proxy)
        if parsed.scheme not in ("http", "https"):
            raise InvalidArgument(
                f"proxy {parsed.scheme}://{parsed.host} in the environment is not http or https"
            )
        if parsed.auth:
            options["proxy_headers"] = urllib3.make_headers(proxy_basic_auth=parsed.auth)
        manager = urllib3.ProxyManager(proxy, **options)
    manager.pool_classes_by_scheme = {"http": PlainPool, "https": TLSPool}
    return manager


def _tls_context(files: TLSFiles, *, insecure: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    name = Path()
    try:
        for name in files.authorities:
            context.load_verify_locations(name)
        for name, key in files.client:
            context.load_cert_chain(name, key)
    except (OSError, ssl.SSLError) as error:
        raise InvalidArgument(f"{name} cannot be used for TLS: {error}") from error
    return context


def _version() -> str:
    try:
        return metadata.version("noded")
    except metadata.PackageNotFoundError:  # run from a checkout
        return "0"


def _mtime(name: Path) -> int:
    try:
        return name.stat().st_mtime_ns
    except OSError:
        return 0


@contextmanager
def _faults(leash: Leash | None = None) -> Iterator[None]:
    """Turns what urllib3 raises into a Fault, or into the cancellation that caused it."""
    import urllib3

    try:
        yield
    except (urllib3.exceptions.HTTPError, OSError, trio.TooSlowError, UnicodeError) as error:
        trio.from_thread.check_cancelled()  # a connection that we cut is no fault of the peer
        if leash is not None and leash.overdue:
            raise Fault(Trouble.STALLED, OVERDUE) from error
        raise _fault(error) from error


def _fault(error: Exception) -> Fault:
    import http.client

    import urllib3

    cause = _root(error)
    text = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return Fault(Trouble.CERTIFICATE, cause.verify_message)
    if isinstance(cause, ssl.SSLError):
        return Fault(Trouble.PROTOCOL, f"TLS failed: {cause.reason or text}")
    if isinstance(cause, trio.TooSlowError):
        return Fault(Trouble.UNREACHABLE, "no connection in time")
    if isinstance(cause, socket.gaierror):
        return Fault(Trouble.UNREACHABLE, f"its name cannot be resolved: {text}")
    if isinstance(cause, TimeoutError) and cause.errno == errno.ETIMEDOUT:
        return Fault(Trouble.UNREACHABLE, text)
    if isinstance(cause, TimeoutError) and "handshake" in text:
        return Fault(Trouble.UNREACHABLE, "no TLS handshake in time")
    if isinstance(cause, TimeoutError | urllib3.exceptions.TimeoutError):
        return Fault(Trouble.STALLED, "sent nothing for too long")
    if isinstance(cause, urllib3.exceptions.IncompleteRead | ConnectionResetError | BrokenPipeError):
        return Fault(Trouble.DROPPED, "the connection broke")
    if isinstance(cause, OSError):
        return Fault(Trouble.UNREACHABLE, text)
    if isinstance(cause, http.client.HTTPException) and not isinstance(cause, http.client.IncompleteRead):
        return Fault(Trouble.PROTOCOL, f"not HTTP as it should be: {text[:200]!r}")
    return Fault(
        Trouble.DROPPED if isinstance(error, urllib3.exceptions.ProtocolError) else Trouble.PROTOCOL, text
    )


def _root(error: BaseException) -> BaseException:
    """The innermost cause: urllib3 wraps, trio groups one failure per address."""
    while True:
        inner = error.__cause__
        if isinstance(error, BaseExceptionGroup):
            inner = error.exceptions[0]
        elif error.args and isinstance(error.args[-1], Exception):
            inner = error.args[-1]
        if inner is None or inner is error:
            return error
        error = inner
