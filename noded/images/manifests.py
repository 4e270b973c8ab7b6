"""From a reference to all that a pull must bring: manifest, platform, configuration, layers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final, TypeVar

import trio

from noded.errors import DataLoss, FailedPrecondition, InvalidArgument, NodedError, NotFound
from noded.images.download import SOURCE_ERRORS, Blobs
from noded.images.platform import choose
from noded.images.refusals import Source, most_telling
from noded.images.registry import Fetched, RegistryClient
from noded.images.transport import Transport
from noded.model.image import Artifact, ImageConfig, LayerRef
from noded.wire import digest as digests
from noded.wire.artifact import ArtifactFile, artifact_files, artifact_layers, parse_artifact
from noded.wire.descriptor import Descriptor, Platform
from noded.wire.manifest import (
    MAX_CONFIG_BYTES,
    Index,
    Manifest,
    layer_refs,
    parse_config,
    parse_manifest,
)
from noded.wire.reference import Reference

MAX_INDEX_DEPTH: Final = 3  # an index in an index exists (nested by some build tools); a loop cannot

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Described:
    """A manifest and the indexes passed on the way to it, outermost first; sources as in `Found`."""

    sources: tuple[Source, ...]
    indexes: tuple[Fetched, ...]
    manifest: Fetched
    parsed: Manifest

    @property
    def digests(self) -> tuple[str, ...]:
        """Every digest that names it: its indexes' and its own."""
        return tuple(dict.fromkeys(fetched.digest for fetched in (*self.indexes, self.manifest)))


@dataclass(frozen=True, slots=True)
class Found:
    """An image as its registry describes it, everything verified.

    Args:
        sources: all sources, the one that had the manifest first.
        indexes: the indexes passed on the way, outermost first.
        config: the configuration's bytes; its digest is the ID of an image that is no artifact.
    """

    sources: tuple[Source, ...]
    indexes: tuple[Fetched, ...]
    manifest: Fetched
    parsed: Manifest
    config: bytes
    settings: ImageConfig
    layers: tuple[LayerRef, ...]
    artifact: Artifact | None = None
    files: tuple[ArtifactFile, ...] = ()

    @property
    def image_id(self) -> str:
        return self.parsed.config.digest if self.artifact is None else self.manifest.digest

    @property
    def digests(self) -> tuple[str, ...]:
        """Every digest that names this image: its indexes' and its manifest's."""
        return tuple(dict.fromkeys(fetched.digest for fetched in (*self.indexes, self.manifest)))

    @property
    def size_bytes(self) -> int:
        """Of manifest, configuration and compressed layers, each blob once."""
        blobs = {layer.blob_digest: layer.size_bytes for layer in self.layers}
        return len(self.manifest.data) + len(self.config) + sum(blobs.values())


class Manifests:
    """Asks the sources of an image for its description."""

    def __init__(self, *, transport: Transport, client: RegistryClient, blobs: Blobs, host: Platform) -> None:
        self._transport, self._client, self._blobs, self._host = transport, client, blobs, host

    async def digest(self, sources: Sequence[Source], reference: Reference) -> str:
        """The digest that the name stands for now, from the first source that knows it; "" if none says.

        One HEAD request where it goes well. Raises and cancels as `find`.
        """
        asked = _asked(sources, reference)
        _, digest = await _first(asked, lambda one: self._client.manifest_digest(one, reference.target))
        return digest

    async def find(self, sources: Sequence[Source], reference: Reference) -> Found:
        """Get and check the image's description for this node's platform.

        Raises: RegistryUnavailable, PermissionDenied, NotFound, DataLoss; FailedPrecondition for an
            image noded cannot use; InvalidArgument for one that is not well formed.
        Cancellation: safe, nothing is stored.
        """
        with _about(sources[0].image):
            described = await self._describe(sources, reference)
            config = await self._config(described.sources, described.parsed.config)
            return _interpret(
                described.sources, described.indexes, described.manifest, described.parsed, config
            )

    async def describe(self, sources: Sequence[Source], reference: Reference) -> Described:
        """Get and check the manifest alone, of whatever it is. Raises and cancels as `find`."""
        with _about(sources[0].image):
            return await self._describe(sources, reference)

    async def _describe(self, sources: Sequence[Source], reference: Reference) -> Described:
        image = sources[0].image
        asked = _asked(sources, reference)
        source, fetched = await _first(asked, lambda one: self._client.manifest(one, reference.target))
        sources = _content_sources(sources, source)
        indexes: list[Fetched] = []
        parsed = parse_manifest(fetched.data, fetched.media_type)
        while isinstance(parsed, Index):
            indexes.append(fetched)
            if len(indexes) > MAX_INDEX_DEPTH:
                raise InvalidArgument(f"its indexes are nested more than {MAX_INDEX_DEPTH} deep")
            fetched = await self._child(
                sources, choose(parsed.manifests, self._host, f"cannot pull {image}: its index")
            )
            parsed = parse_manifest(fetched.data, fetched.media_type)
        return Described(tuple(sources), tuple(indexes), fetched, parsed)

    async def _child(self, sources: Sequence[Source], entry: Descriptor) -> Fetched:
        _, fetched = await _first(sources, lambda one: self._client.manifest(one, entry.digest))
        # The index says what its entry is; a registry's Content-Type says no more.
        return Fetched(fetched.data, entry.media_type or fetched.media_type, fetched.digest)

    async def _config(self, sources: Sequence[Source], config: Descriptor) -> bytes:
        if config.size_bytes > MAX_CONFIG_BYTES:
            raise InvalidArgument(f"its config has {config.size_bytes} bytes, more than {MAX_CONFIG_BYTES}")
        with suppress(NotFound, DataLoss):  # a damaged one is as good as none
            return await trio.to_thread.run_sync(self._blobs.read, config.digest, MAX_CONFIG_BYTES)
        _, data = await _first(
            sources,
            lambda one: self._transport.call(self._download_config, one, config.digest, config.size_bytes),
        )
        return data

    def _download_config(self, source: Source, digest: str, size_bytes: int) -> bytes:
        data = bytearray()
        self._client.download(source, digest, size_bytes, data.extend)
        digests.verify(bytes(data), digest, f"{source.subject} sent a config that")
        return bytes(data)


@contextmanager
def _about(image: str) -> Iterator[None]:
    """Begin messages about the image's own faults with its name."""
    try:
        yield
    except (InvalidArgument, FailedPrecondition) as error:
        if str(error).startswith("cannot pull"):
            raise
        raise type(error)(f"cannot pull {image}: {error}") from error


def _asked(sources: Sequence[Source], reference: Reference) -> Sequence[Source]:
    """Those that may be asked for the name."""
    able = [one for one in sources if (one.endpoint.pulls if reference.digest else one.endpoint.resolves)]
    if not able:
        what = "pull" if reference.digest else "resolve"
        raise FailedPrecondition(
            f"cannot pull {sources[0].image}: no host configured for it has the capability {what!r}"
        )
    return able


def _content_sources(sources: Sequence[Source], answered: Source) -> tuple[Source, ...]:
    """Whom to ask for content, best first: caches that tags are not asked of, then who had the manifest."""
    able = [one for one in sources if one.endpoint.pulls]
    return tuple(sorted(able, key=lambda one: (one.endpoint.resolves, one is not answered))) or (answered,)


def _interpret(
    sources: tuple[Source, ...],
    indexes: tuple[Fetched, ...],
    manifest: Fetched,
    parsed: Manifest,
    config: bytes,
) -> Found:
    artifact = parse_artifact(parsed)
    if artifact is not None:
        settings = ImageConfig(annotations=parsed.annotations, os="")
        layers, files = artifact_layers(parsed, manifest.digest), artifact_files(parsed)
        return Found(sources, indexes, manifest, parsed, config, settings, layers, artifact, files)
    document = parse_config(config, parsed.annotations)
    layers = layer_refs(parsed, document)
    return Found(sources, indexes, manifest, parsed, config, document.config, layers)


async def _first(sources: Sequence[Source], ask: Callable[[Source], Awaitable[T]]) -> tuple[Source, T]:
    """The first source that answers, and its answer. Raises: the most telling of all errors."""
    errors: list[NodedError] = []
    for source in sources:
        try:
            return source, await ask(source)
        except SOURCE_ERRORS as error:
            errors.append(error)
    raise most_telling(errors)
