"""TLS for the streaming server, from files that may be replaced while it runs."""

from __future__ import annotations

import ssl
from pathlib import Path

import structlog

from noded.config import StreamingConfig
from noded.errors import InvalidArgument

log = structlog.get_logger(__name__)

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


class TlsFiles:
    """Certificate, key and client CA; a new context whenever one of the files has changed.

    Raises: InvalidArgument naming the key when the configuration or the files are no good.
    """

    def __init__(self, config: StreamingConfig) -> None:
        assert config.tls_cert is not None
        if config.tls_key is None:
            raise InvalidArgument("streaming.tls_key: set it too, streaming.tls_cert is set")
        self._config = config
        self._files = [
            path for path in (config.tls_cert, config.tls_key, config.tls_client_ca) if path is not None
        ]
        self._stamps = self._look()
        self._context = self._load()

    def context(self) -> ssl.SSLContext:
        """The context for the next connection. Files that cannot be used leave the old one in force."""
        stamps = self._look()
        if stamps != self._stamps:
            self._stamps = stamps
            try:
                self._context = self._load()
                log.info("streaming certificate reloaded", cert=str(self._config.tls_cert))
            except InvalidArgument as error:
                log.error("streaming certificate not reloaded, the old one stays", error=str(error))
        return self._context

    def _load(self) -> ssl.SSLContext:
        config = self._config
        cert = config.tls_cert
        assert cert is not None  # as `__init__` demands
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = _VERSIONS[config.tls_min_version]
        try:
            context.load_cert_chain(cert, config.tls_key)
        except (OSError, ssl.SSLError) as error:
            raise InvalidArgument(
                f"streaming.tls_cert, streaming.tls_key: cannot load {config.tls_cert} "
                f"with {config.tls_key}: {error.strerror or error}"
            ) from error
        if config.tls_client_ca is not None:
            try:
                context.load_verify_locations(config.tls_client_ca)
            except (OSError, ssl.SSLError) as error:
                raise InvalidArgument(
                    f"streaming.tls_client_ca: cannot load {config.tls_client_ca}: {error.strerror or error}"
                ) from error
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _look(self) -> tuple[tuple[int, int, int], ...]:
        return tuple(map(_stamp, self._files))


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        status = path.stat()
    except OSError:
        return (0, 0, 0)
    return status.st_mtime_ns, status.st_size, status.st_ino
