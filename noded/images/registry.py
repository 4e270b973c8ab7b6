"""The pull side of the OCI distribution specification: manifests and blobs from one endpoint."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Final

from noded.errors import DataLoss, FailedPrecondition, InvalidArgument
from noded.images.exchange import Exchange, Retry
from noded.images.http_faults import Fault, Trouble
from noded.images.refusals import Source, unreached
from noded.images.tokens import Tokens
from noded.images.transport import Reply, Transport
from noded.wire import digest as digests
from noded.wire.manifest import ACCEPT, MAX_MANIFEST_BYTES

GATHER_BYTES: Final = 64 * 1024
PROGRESS_BYTES: Final = 256 * 1024  # a resumed download that brought so much starts counting failures anew
_LENGTH: Final = re.compile(r"[0-9]{1,18}\Z")
_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)\Z")


@dataclass(frozen=True, slots=True)
class Fetched:
    """A manifest's exact bytes, its media type as the registry names it, and its digest."""

    data: bytes
    media_type: str
    digest: str


class RegistryClient:
    """Asks registries. Without `retry`, the default one."""

    def __init__(
        self, transport: Transport, *, retry: Retry | None = None, tokens: Tokens | None = None
    ) -> None:
        self._transport = transport
        self._retry = retry = retry or Retry()
        self._exchange = Exchange(transport, retry=retry, tokens=tokens or Tokens())

    async def manifest_digest(self, source: Source, target: str) -> str:
        """The digest behind a tag or digest, by HEAD; "" when the registry does not say.

        Proves that the credential may read the repository.

        Cancellation: safe, within moments. Raises: as `manifest`.
        """
        return await self._transport.call(self._manifest_digest, source, target)

    async def manifest(self, source: Source, target: str) -> Fetched:
        """The manifest or index of a tag or digest, its digest verified.

        Raises: RegistryUnavailable, PermissionDenied, NotFound, DataLoss, FailedPrecondition, each
            naming the image, the endpoint and what to do.
        Cancellation: safe, within moments.
        """
        return await self._transport.call(self._manifest, source, target)

    def download(
        self, source: Source, digest: str, size_bytes: int, sink: Callable[[bytes], object], received: int = 0
    ) -> None:
        """Bring a blob's bytes from offset `received` on, resuming by Range. Only inside `Transport.call`.

        The digest is for the sink to check. Raises: as `manifest`; what `sink` raises.
        """
        failures = 0
        while received < size_bytes:
            before = received
            try:
                with closing(self._blob_chunks(source, digest, size_bytes, received)) as chunks:
                    for chunk in _gathered(chunks):
                        sink(chunk)
                        received += len(chunk)
                if received < size_bytes:
                    raise Fault(Trouble.DROPPED, "the connection broke")
            except Fault as fault:
                failures = 1 if received - before >= PROGRESS_BYTES else failures + 1
                if failures >= self._retry.attempts:
                    raise unreached(source, fault, f"blob {digest}") from fault
                self._exchange.sleep(self._retry.wait_seconds(failures))

    def _manifest_digest(self, source: Source, target: str) -> str:
        headers = {"Accept": ", ".join(ACCEPT)}
        with self._exchange.request(source, "HEAD", f"manifests/{target}", headers) as reply:
            stated = reply.headers.get("Docker-Content-Digest", "")
        try:
            return digests.parse(stated) if stated else ""
        except InvalidArgument:
            return ""

    def _manifest(self, source: Source, target: str) -> Fetched:
        headers = {"Accept": ", ".join(ACCEPT)}
        data, reply = self._whole(source, f"manifests/{target}", headers, MAX_MANIFEST_BYTES)
        what = f"{source.subject} sent a manifest that"
        if len(data) > MAX_MANIFEST_BYTES:
            raise FailedPrecondition(f"{what} is larger than {MAX_MANIFEST_BYTES} bytes")
        stated = reply.headers.get("Docker-Content-Digest", "")
        if ":" in target:
            digests.verify(data, target, what)
            digest = target
        else:
            digest = digests.of(data)
            if stated.startswith("sha256:"):
                digests.verify(data, stated, what)
        return Fetched(data, reply.headers.get("Content-Type", ""), digest)

    def _whole(
        self, source: Source, resource: str, headers: Mapping[str, str], limit_bytes: int
    ) -> tuple[bytes, Reply]:
        failures = 0
        while True:
            try:
                with self._exchange.request(source, "GET", resource, headers) as reply:
                    data = reply.body(limit_bytes)
                if not data and not reply.has_length:
                    # http.client takes a connection that ends amid the headers for an empty answer.
                    raise Fault(Trouble.DROPPED, "the connection broke")
                return data, reply
            except Fault as fault:
                failures += 1
                if failures >= self._retry.attempts:
                    raise unreached(source, fault, resource) from fault
                self._exchange.sleep(self._retry.wait_seconds(failures))

    def _blob_chunks(self, source: Source, digest: str, size_bytes: int, received: int) -> Generator[bytes]:
        headers = {"Range": f"bytes={received}-"} if received else {}
        what = f"{source.subject} sent a damaged blob {digest}"
        with self._exchange.request(source, "GET", f"blobs/{digest}", headers) as reply:
            skip = _bytes_to_skip(reply, received)
            total = _total_size(reply, received if reply.status == 206 else 0)
            if total is not None and total != size_bytes:
                raise DataLoss(f"{what}: it has {total} bytes, its manifest says {size_bytes}")
            for chunk in reply.chunks():
                fresh = chunk[skip:] if skip else chunk
                skip = max(0, skip - len(chunk))
                received += len(fresh)
                if received > size_bytes:
                    raise DataLoss(f"{what}: it is longer than the {size_bytes} bytes of its manifest")
                if fresh:
                    yield fresh


def _gathered(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in fewer pieces: a TLS record holds 16 KiB, and each piece costs several calls.

    When `chunks` fails, what was gathered comes out first.
    """
    pieces: list[bytes] = []
    length = 0
    try:
        for chunk in chunks:
            pieces.append(chunk)
            length += len(chunk)
            if length >= GATHER_BYTES:
                yield chunk if len(pieces) == 1 else b"".join(pieces)
                pieces, length = [], 0
    except Fault:
        if pieces:
            yield b"".join(pieces)
        raise
    if pieces:
        yield b"".join(pieces)


def _bytes_to_skip(reply: Reply, received: int) -> int:
    """How many bytes of this body we have already: a server without Range support sends all again."""
    if reply.status != 206:
        return received
    match = _CONTENT_RANGE.match(reply.headers.get("Content-Range", ""))
    if match is None or int(match[1]) > received:
        raise Fault(Trouble.PROTOCOL, "it answered a Range request with another range")
    return received - int(match[1])


def _total_size(reply: Reply, received: int) -> int | None:
    """The whole blob's size as the answer tells it, None when it does not."""
    if match := _CONTENT_RANGE.match(reply.headers.get("Content-Range", "")):
        return None if match[2] == "*" else int(match[2])
    length = reply.headers.get("Content-Length", "")
    return int(length) + received if _LENGTH.match(length) else None
