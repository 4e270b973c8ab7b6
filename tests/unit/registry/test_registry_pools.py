"""Which connections share certificates, and when those are read again."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import Any

import pytest
from urllib3 import PoolManager

from noded.images.endpoints import TLSFiles
from noded.images.pools import Pools


def context(manager: PoolManager) -> Any:
    return manager.connection_pool_kw["ssl_context"]


def test_certificates_are_read_once_however_often_connections_are_closed(tmp_path: Path) -> None:
    pools = Pools((tmp_path,))
    first = pools.of("registry.example", "", TLSFiles(), insecure=False)
    pools.close()
    second = pools.of("registry.example", "", TLSFiles(), insecure=False)
    assert second is not first
    assert context(second) is context(first)
    assert context(second).verify_mode == ssl.CERT_REQUIRED
    assert context(second).check_hostname


def test_changed_certificates_of_the_system_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "bundle.crt"
    bundle.write_bytes(b"")
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    pools = Pools((tmp_path / "certs.d",))
    before = context(pools.of("registry.example", "", TLSFiles(), insecure=False))
    os.utime(bundle, ns=(1, 1))
    assert context(pools.of("registry.example", "", TLSFiles(), insecure=False)) is not before


def test_a_host_that_may_have_any_certificate_shares_nothing_with_others(tmp_path: Path) -> None:
    pools = Pools((tmp_path,))
    strict = pools.of("registry.example", "", TLSFiles(), insecure=False)
    lax = pools.of("registry.example", "", TLSFiles(), insecure=True)
    assert context(strict).verify_mode == ssl.CERT_REQUIRED
    assert context(lax).verify_mode == ssl.CERT_NONE


def test_plain_http_needs_no_certificates_but_a_proxy_with_tls_does(tmp_path: Path) -> None:
    pools = Pools((tmp_path,))
    assert context(pools.of("registry.example", "", None, insecure=False)) is None
    proxied = pools.of("registry.example", "https://proxy.example:3128", None, insecure=False)
    assert context(proxied).verify_mode == ssl.CERT_REQUIRED
