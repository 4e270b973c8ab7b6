"""Connections to registries, kept open between calls: a pool for each set of certificates and proxy."""

from __future__ import annotations

import ssl
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from noded.errors import InvalidArgument
from noded.images.endpoints import TLSFiles, tls_files

if TYPE_CHECKING:  # imported with the first request: a daemon that pulls nothing is 3 MB smaller
    import urllib3

MAX_POOLS: Final = 64  # hosts whose connections are kept open
_MAX_CONTEXTS: Final = 8


@dataclass(frozen=True, slots=True)
class _ContextKey:
    insecure: bool
    files: tuple[tuple[Path, int], ...]  # certificate files with their mtime_ns, so that a change is seen


@dataclass(frozen=True, slots=True)
class _PoolKey:
    host: str
    proxy: str
    tls: _ContextKey | None  # None: neither the host nor the proxy has TLS


class Pools:
    """Safe in threads.

    Args:
        certs_dirs: where certificates of hosts are, which are read again when they change.
    """

    def __init__(self, certs_dirs: tuple[Path, ...]) -> None:
        self._certs_dirs = certs_dirs
        self._pools: dict[_PoolKey, urllib3.PoolManager] = {}
        # They outlive the connections: reading a system's certificates takes 20 ms, each time that kubelet
        # asks whether an image is still what its registry has.
        self._contexts: dict[_ContextKey, ssl.SSLContext] = {}
        self._lock = threading.Lock()

    def of(self, host: str, proxy: str, files: TLSFiles | None, *, insecure: bool) -> urllib3.PoolManager:
        """Connections to a host with these certificates; None = without TLS."""
        tls = files is not None or proxy.startswith("https:")
        if files is None:
            files = TLSFiles()
        elif files == TLSFiles():
            files = tls_files(host, self._certs_dirs)
        own = [*files.authorities, *(name for pair in files.client for name in pair)]
        names = own if insecure else [*own, *_system_authorities()]
        context = _ContextKey(insecure, tuple((name, _mtime(name)) for name in names)) if tls else None
        key = _PoolKey(host if own else "", proxy, context)
        with self._lock:
            pool = self._pools.get(key)
            if pool is None:
                if len(self._pools) >= MAX_POOLS:
                    _close_idle(self._pools.pop(next(iter(self._pools))))
                pool = self._pools[key] = _new_pool(proxy, self._context(context, files))
        return pool

    def _context(self, key: _ContextKey | None, files: TLSFiles) -> ssl.SSLContext | None:
        if key is None:
            return None
        context = self._contexts.get(key)
        if context is None:
            context = _tls_context(files, insecure=key.insecure)
            if len(self._contexts) >= _MAX_CONTEXTS:
                self._contexts.pop(next(iter(self._contexts)))
            self._contexts[key] = context
        return context

    def close(self) -> None:
        """Close idle connections."""
        with self._lock:
            pools, self._pools = self._pools, {}
        for manager in pools.values():
            _close_idle(manager)


def _close_idle(manager: urllib3.PoolManager) -> None:
    """Close the connections that nobody uses; PoolManager.clear() leaves them to the garbage collector."""
    for key in manager.pools.keys():  # noqa: SIM118 # not a dict: it cannot be iterated
        if (pool := manager.pools.get(key)) is not None:
            pool.close()
    manager.clear()


def _new_pool(proxy: str, context: ssl.SSLContext | None) -> urllib3.PoolManager:
    import urllib3

    from noded.images.leashed_pools import PlainPool, TLSPool

    # An operator asked for it with `insecure = true`; saying so at each request helps nobody.
    urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    options: dict[str, Any] = {"num_pools": 16, "maxsize": 16, "ssl_context": context}
    if context is not None and context.verify_mode == ssl.CERT_NONE:
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
    if insecure:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context = ssl.create_default_context()
    name = Path()
    try:
        for name in files.authorities:
            context.load_verify_locations(name)
        for name, key in files.client:
            context.load_cert_chain(name, key)
    except (OSError, ssl.SSLError) as error:
        raise InvalidArgument(f"{name} cannot be used for TLS: {error}") from error
    return context


def _system_authorities() -> list[Path]:
    """Where OpenSSL has the certificates that it trusts by itself: a file, a directory, or both."""
    paths = ssl.get_default_verify_paths()
    return [Path(name) for name in (paths.cafile, paths.capath) if name]


def _mtime(name: Path) -> int:
    try:
        return name.stat().st_mtime_ns
    except OSError:
        return 0
