"""Signatures in a lookaside store: `URL/REPOSITORY@sha256=HEX/signature-N` from 1 on, until one is missing.

Spec: containers-registries.d(5), "Individual Configuration Sections".
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote, urlsplit

import trio

from noded.errors import FailedPrecondition, RegistryUnavailable
from noded.images.http_faults import Fault
from noded.images.transport import Transport
from noded.wire import digest as digests
from noded.wire.reference import Reference

MAX_SIGNATURE_BYTES: Final = 4 << 20
MAX_SIGNATURES: Final = 64  # of one manifest


async def signatures(
    base: str, reference: Reference, digest: str, transport: Transport
) -> AsyncIterator[bytes]:
    """All signatures of a manifest.

    Raises: RegistryUnavailable when the store does not answer, FailedPrecondition when it makes no sense.
    Cancellation: safe.
    """
    parts = f"{reference.path}@{digests.algorithm(digest)}={digests.encoded(digest)}"
    for number in range(1, MAX_SIGNATURES + 1):
        if base.startswith("file://"):
            root = Path(unquote(urlsplit(base).path))
            data = await trio.to_thread.run_sync(_read, root / parts / f"signature-{number}")
        else:
            url = f"{base}/{quote(parts, safe='/@=')}/signature-{number}"
            data = await transport.call(_download, transport, url)
        if data is None:
            return
        yield data


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(MAX_SIGNATURE_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise FailedPrecondition(f"signature {path} cannot be read: {error.strerror}") from error


def _download(transport: Transport, url: str) -> bytes | None:
    try:
        with transport.open("GET", url, {}) as reply:
            if reply.status == 404:
                return None
            if reply.status != 200:
                raise RegistryUnavailable(f"the signature store answered {reply.status} for {url}")
            return reply.body(MAX_SIGNATURE_BYTES)
    except Fault as fault:
        raise RegistryUnavailable(f"the signature store cannot be asked for {url}: {fault}") from fault
