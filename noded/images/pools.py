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


@dataclass(frozen=True, slots=True)
class _PoolKey:
    host: str
    insecure: bool
    proxy: str
    files: tuple[tuple[Path, int], ...]  # certificate files with their mtime_ns, so that a change is seen


class Pools:
    """Safe in threads.

    Args:
        certs_dirs: where certificates of hosts are, which are read again when they change.
    """

    def __init__(self, certs_dirs: tuple[Path, ...]) -> None:
        self._certs_dirs = certs_dirs
        self._pools: dict[_PoolKey, urllib3.PoolManager] = {}
        self._lock = threading.Lock()

    def of(self, host: str, proxy: str, files: TLSFiles | None, *, insecure: bool) -> urllib3.PoolManager:
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


def _mtime(name: Path) -> int:
    try:
        return name.stat().st_mtime_ns
    except OSError:
        return 0
