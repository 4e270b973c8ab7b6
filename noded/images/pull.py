"""PullImage: from a name to a complete image in the local store.

name -> candidates -> endpoints -> manifest -> configuration -> layers -> published

Nothing of an image can be seen before `library.publish`. Whatever fails or is cancelled earlier
leaves only blobs and layers that nobody owns, which the library collects once their lease is gone.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, Protocol

import structlog
import trio

from noded.config import ImagesConfig
from noded.errors import (
    FailedPrecondition,
    InvalidArgument,
    NodedError,
    NotFound,
    PermissionDenied,
    RegistryUnavailable,
    Unavailable,
)
from noded.images.auth import DEFAULT_FILES, Credentials, RawAuthFile
from noded.images.decrypt.keys import DecryptionKeys
from noded.images.download import SOURCE_ERRORS, Blobs, Downloads
from noded.images.endpoints import candidates
from noded.images.fetch import Fetcher, Job, Layers
from noded.images.flight import Flights, Work
from noded.images.manifests import Found, Manifests
from noded.images.platform import host_platform
from noded.images.progress import ByteCount, LayerProgress, PullProgress, snapshot
from noded.images.proxies import Proxies
from noded.images.pull_log import PullLog
from noded.images.refusals import Source, most_telling
from noded.images.registries_conf import RegistriesConf
from noded.images.registry import RegistryClient
from noded.images.sources import Sources
from noded.images.transport import Transport
from noded.images.trust.admission import Admission
from noded.images.trust.checker import Checker
from noded.model.image import Credential, Image, LayerRef
from noded.tracing.spans import span
from noded.wire.artifact import only_file
from noded.wire.descriptor import Platform
from noded.wire.policy import Requirement
from noded.wire.reference import Reference, parse

RELEASE_SECONDS: Final = 30.0  # budget for giving leases back when a pull ends in any way

log = structlog.get_logger(__name__)


class Library(Protocol):
    """The part of `noded.images.library.Library` that a pull needs."""

    def get(self, reference: str) -> Image | None: ...
    async def lease(self, digest: Collection[str], owner: str) -> object: ...
    async def release(self, owner: str) -> object: ...
    async def publish(self, image: Image) -> object: ...


@dataclass(slots=True)
class _Running:
    """One pull in progress, for `Puller.progress`."""

    reference: str
    started_at_ns: int
    layers: list[LayerProgress] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class PulledFile:
    """The digest that an artifact's name stands for, and that of its one file."""

    digest: str
    blob_digest: str


@dataclass(frozen=True, slots=True)
class _Key:
    """Pulls that may share one task: same names, same rights."""

    names: tuple[Reference, ...]
    credential: Credential | None
    namespace: str
    handed_over: tuple[RawAuthFile | None, ...]  # one per name


class Puller:
    """Pulls images. A service: `run` must be running.

    Args:
        transport, client: connections and who uses them; by default as configured, with the
            environment's proxies.
        credentials: stored logins; by default those of `auth_file` or the usual places.
        keys: for encrypted images; none without it.
        host: the platform to pull for, by default this node's.
    """

    def __init__(
        self,
        config: ImagesConfig,
        blobs: Blobs,
        layers: Layers,
        library: Library,
        *,
        transport: Transport | None = None,
        client: RegistryClient | None = None,
        credentials: Credentials | None = None,
        keys: DecryptionKeys | None = None,
        host: Platform | None = None,
    ) -> None:
        self._config, self._blobs, self._layers, self._library = config, blobs, layers, library
        self._transport = transport or Transport(
            stall_seconds=config.stall_timeout_seconds, proxies=Proxies.from_environment(os.environ)
        )
        self._client = client or RegistryClient(self._transport)
        files = (config.auth_file,) if config.auth_file is not None else DEFAULT_FILES
        self._sources = Sources(config, credentials or Credentials(files))
        self._manifests = Manifests(
            transport=self._transport, client=self._client, blobs=blobs, host=host or host_platform()
        )
        self._keys = keys or DecryptionKeys(None)
        self._trust = Checker(
            self._transport,
            self._client,
            policy=config.signature_policy,
            namespace_policies=config.signature_policy_dir,
            registries_d=config.signature_registries_dir,
        )
        self._admission: Admission | None = None
        self._running: dict[str, _Running] = {}
        self._received = ByteCount()
        self._log = PullLog(self.progress)
        self._flights: Flights[_Key, str] | None = None
        self._downloads: Downloads | None = None
        self._fetcher: Fetcher | None = None
        # Told of each pull that has ended: how far it came, "ok" or the class of error.
        self.observe: Callable[[PullProgress, str], None] = lambda progress, result: None

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve pulls until cancelled.

        Cancellation: ends running pulls; their callers get Unavailable.
        """
        try:
            await self._sources.reload()
        except InvalidArgument as error:  # running pods do not depend on it; every pull will say so
            log.warning("registries.conf is not valid", error=str(error))
        try:
            async with trio.open_nursery() as nursery:
                self._downloads = Downloads(
                    nursery,
                    transport=self._transport,
                    client=self._client,
                    blobs=self._blobs,
                    received=self._received,
                )
                self._fetcher = Fetcher(
                    nursery,
                    downloads=self._downloads,
                    blobs=self._blobs,
                    layers=self._layers,
                    unpack_workers=self._config.unpack_workers,
                    keep_blobs=self._config.keep_blobs,
                )
                self._flights = Flights(nursery)
                nursery.start_soon(self._log.run)
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._flights = self._downloads = self._fetcher = None
            self._transport.close()

    def names(self, text: str) -> tuple[Reference, ...]:
        """What the name of a local image may mean; see `Sources.names`."""
        return self._sources.names(text)

    async def candidates(self, text: str) -> tuple[Reference, ...]:
        """The names to try for what a client wrote.

        Raises: InvalidArgument for a malformed reference or registries.conf.
        """
        return candidates(await self._sources.reload(), text)

    def progress(self) -> tuple[PullProgress, ...]:
        """All pulls that run now."""
        return tuple(snapshot(one.reference, one.started_at_ns, one.layers) for one in self._running.values())

    @property
    def received_bytes(self) -> int:
        """Bytes of blobs that have come, those of failed and repeated downloads too."""
        return self._received.total

    async def pull(self, reference: str, credential: Credential | None = None, namespace: str = "") -> str:
        """Pull an image, or make sure that the one here is what its registry has; return its image ID.

        Pulls of the same name with the same credentials share one task. For an image that is here,
        one HEAD request proves that the credential may read it.

        Args:
            credential: from the client; None = what the node has stored for the registry.
            namespace: of the pod, "" if none; pulls of different namespaces are not shared.

        Raises:
            InvalidArgument: the reference, registries.conf or the image itself is not well formed.
            RegistryUnavailable, PermissionDenied, NotFound, DataLoss, FailedPrecondition,
            ResourceExhausted: naming the image, the endpoint and what to do.
            SignatureValidationFailed: the node's policy does not accept it.

        Cancellation: safe. When the last caller leaves, the pull ends and its bytes are removed.
        Spec: CRI v1 `PullImage`.
        """
        if credential == Credential():  # a client's empty AuthConfig means none
            credential = None
        conf = await self._sources.reload()
        if self._flights is None:
            raise Unavailable("noded does not pull images yet, or no more: try again")
        names = candidates(conf, reference)
        async with self._sources.logins.handed_over(namespace, names) as handed_over:
            if self._flights is None:  # it has stopped meanwhile
                raise Unavailable("noded is stopping: try again when it is up")
            key = _Key(names, credential, namespace, handed_over)
            return await self._flights.join(key, lambda: self._begin(key, conf))

    def _begin(self, key: _Key, conf: RegistriesConf) -> Work[str]:
        return partial(self._pull_any, key, conf)

    async def _pull_any(self, key: _Key, conf: RegistriesConf) -> str:
        errors: list[NodedError] = []
        for name, handed_over in zip(key.names, key.handed_over, strict=True):
            try:
                return await self._pull_name(name, conf, key, handed_over)
            except (NotFound, PermissionDenied, RegistryUnavailable) as error:
                errors.append(error)
        raise most_telling(errors)

    async def _pull_name(
        self, name: Reference, conf: RegistriesConf, key: _Key, handed_over: RawAuthFile | None
    ) -> str:
        owner = f"pull-{secrets.token_hex(8)}"
        running = self._running[owner] = _Running(str(name), time.time_ns())
        self._log.begin()
        started, result = trio.current_time(), "ok"
        try:
            with span("policy and sources"):
                required = await self._trust.requirements(name, key.namespace)
                sources = await self._sources.find(name, conf, key.credential, key.namespace, handed_over)
            if (present := self._library.get(name.canonical)) is not None:
                with span("ask the registry"):
                    digest = await self._manifests.digest(sources, name)
                if digest and f"{name.repository}@{digest}" in present.digests:
                    # Another namespace, or a changed policy, may ask for more than it did at first.
                    digests = (digest, present.manifest_digest)
                    await self._check(name, tuple(dict.fromkeys(digests)), sources, required)
                    log.debug("image is up to date", reference=str(name), image_id=present.id)
                    return present.id
            with span("manifest"):
                found = await self._manifests.find(sources, name)
            with span("signatures"):
                await self._check(name, found.digests, found.sources, required)
            image = await self._bring(name, found, owner, running)
        except BaseException as error:
            result = type(error).__name__
            raise
        finally:
            del self._running[owner]
            self.observe(snapshot(running.reference, running.started_at_ns, running.layers), result)
            if not self._running:  # an idle daemon holds no connection to any registry
                self._transport.close()
            with trio.move_on_after(RELEASE_SECONDS, shield=True):
                await self._library.release(owner)
        log.info(
            "image pulled",
            reference=str(name),
            image_id=image.id,
            endpoint=found.sources[0].endpoint.name,
            bytes=image.size_bytes,
            seconds=round(trio.current_time() - started, 3),
        )
        return image.id

    async def pull_file(
        self, name: Reference, namespace: str, *, known: str, limit_bytes: int, lease: str
    ) -> PulledFile | None:
        """Bring the one file of an artifact into the content store, whatever its media types are.

        The node's own credentials, mirrors and signature policy are used, as for images.

        Args:
            known: digest that the name stood for at the last time, "" for none.
            limit_bytes: the largest file that is accepted.
            lease: owner of the lease that keeps the file; the caller releases it.

        Returns: None when the name still stands for `known`.
        Raises: as `pull`; InvalidArgument when it is no artifact of one file, or one that is too large.
        Cancellation: safe.
        """
        conf = await self._sources.reload()
        if self._downloads is None:
            raise Unavailable("noded does not pull images yet, or no more: try again")
        try:
            required = await self._trust.requirements(name, namespace)
            sources = await self._sources.find(name, conf, None, namespace)
            if known and await self._manifests.digest(sources, name) == known:
                await self._trust.check(name, (known,), sources, required)
                return None
            found = await self._manifests.describe(sources, name)
            await self._check(name, found.digests, found.sources, required)
            file = only_file(found.parsed, str(name), limit_bytes)
            await self._library.lease({file.digest}, lease)
            await self._downloads.bring(found.sources, LayerProgress(file.digest, file.size_bytes))
        finally:
            if not self._running:
                self._transport.close()
        log.info("file pulled", reference=str(name), digest=file.digest, bytes=file.size_bytes)
        return PulledFile(found.digests[0], file.digest)

    async def restore(self, image: Image, layers: Sequence[LayerRef]) -> None:
        """Bring blobs of an image that is here, from where it came, with the node's own credentials.

        Blobs that are here are replaced: they are damaged.

        Raises: NotFound when its registry is not known; as `pull`.
        Cancellation: safe.
        """
        conf = await self._sources.reload()
        if self._downloads is None:
            raise Unavailable("noded does not pull images yet, or no more: try again")
        names = [parse(text) for text in image.digests]
        if not names:
            raise NotFound(f"image {image.id} was loaded from a file: load it again")
        owner = f"restore-{secrets.token_hex(8)}"
        errors: list[NodedError] = []
        try:
            await self._library.lease({layer.blob_digest for layer in layers}, owner)
            for name in names:
                try:
                    found = await self._sources.find(name, conf, None, "")
                    sources = [one for one in found if one.endpoint.pulls] or found
                    for layer in layers:
                        progress = LayerProgress(layer.blob_digest, layer.size_bytes)
                        await self._downloads.bring(sources, progress, replace=True)
                    return
                except SOURCE_ERRORS as error:
                    errors.append(error)
            raise most_telling(errors)
        finally:
            if not self._running:
                self._transport.close()
            with trio.move_on_after(RELEASE_SECONDS, shield=True):
                await self._library.release(owner)

    def admission(self, verdicts: Path) -> Admission:
        """Make the judge of images that are here already; it learns from the pulls.

        Args:
            verdicts: directory for what it has found.
        """

        async def sources(name: Reference, namespace: str) -> Sequence[Source]:
            return await self._sources.find(name, await self._sources.reload(), None, namespace)

        self._admission = Admission(self._trust, sources, self.names, verdicts)
        return self._admission

    async def _check(
        self,
        name: Reference,
        digests: Sequence[str],
        sources: Sequence[Source],
        required: Sequence[Requirement],
    ) -> None:
        await self._trust.check(name, digests, sources, required)
        if self._admission is not None:
            await self._admission.keep(name, digests, required)

    async def _bring(self, name: Reference, found: Found, owner: str, running: _Running) -> Image:
        if self._fetcher is None or self._downloads is None:
            raise Unavailable("noded is stopping: try again when it is up")
        with span("lease"):
            await self._library.lease(_needed(found), owner)
        try:  # a download that ends with a missing key would be repeated for ever
            absent = [layer for layer in found.layers if not self._layers.has(layer.chain_id)]
            await trio.to_thread.run_sync(self._keys.check, absent)
        except (FailedPrecondition, InvalidArgument) as error:
            raise type(error)(f"cannot pull {name}: {error}") from None
        job = Job(
            image=str(name),
            sources=found.sources,
            layers=found.layers,
            parallel=self._config.max_parallel_downloads,
            progress=running.layers,
        )
        with span("layers"):
            if found.artifact is None:
                await self._fetcher.fetch(job)
            else:
                await self._fetcher.fetch_files(job, found.files)
        with span("publish"):
            for data in (*(one.data for one in found.indexes), found.manifest.data, found.config):
                await self._downloads.keep(data)
            await self._layers.publish(found.layers)
        image = Image(
            id=found.image_id,
            manifest_digest=found.manifest.digest,
            tags=() if name.digest else (name.canonical,),
            digests=tuple(f"{name.repository}@{digest}" for digest in found.digests),
            size_bytes=found.size_bytes,
            layers=found.layers,
            config=found.settings,
            created_at_ns=time.time_ns(),
            artifact=found.artifact,
        )
        with span("record"):
            await self._library.publish(image)
        return image


def _needed(found: Found) -> Collection[str]:
    """Digests of the blobs and chain IDs of the layers that must stay while the pull runs."""
    blobs = (layer.blob_digest for layer in found.layers)
    chains = (layer.chain_id for layer in found.layers)
    return {*found.digests, found.parsed.config.digest, *blobs, *chains}
