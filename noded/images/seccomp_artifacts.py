"""Seccomp profiles from OCI registries, pinned by digest.

A profile is pulled when a container is made. What its reference stood for, and the profile's bytes, are
kept: while the registry does not answer, or when the reference names a digest, the kept profile is used.
So a node that starts without its registry still runs its pods. It is forgotten when no container of this
node was made with it and `KEEP_SECONDS` have passed since one was.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Final, Protocol

import structlog
import trio

from noded.errors import (
    DataLoss,
    InvalidArgument,
    NodedError,
    NotFound,
    PermissionDenied,
    RegistryUnavailable,
)
from noded.images.content import ContentStore
from noded.images.pull import PulledFile
from noded.images.refusals import most_telling
from noded.spec.seccomp.profile import MAX_PROFILE_BYTES, parse_artifact_profile
from noded.store.seccomp_artifacts import SeccompArtifact, SeccompArtifactRows
from noded.wire.reference import Reference

KEEP_SECONDS: Final = 30 * 24 * 3600.0
MOST_UNUSED: Final = 256  # kept beside those that containers were made with
ASK_SECONDS: Final = 5.0  # how long a registry is asked when there is a kept profile
_RELEASE_SECONDS: Final = 30.0

log = structlog.get_logger(__name__)


class Puller(Protocol):
    """The part of `noded.images.pull.Puller` that is needed."""

    async def candidates(self, text: str) -> tuple[Reference, ...]: ...
    async def pull_file(
        self, name: Reference, namespace: str, *, known: str, limit_bytes: int, lease: str
    ) -> PulledFile | None: ...


class Library(Protocol):
    """The part of `noded.images.library.Library` that is needed."""

    async def release(self, owner: str) -> object: ...


@dataclass(frozen=True, slots=True)
class ArtifactProfile:
    """The bytes of a profile; `pin` names them for ever: `registry/repository@sha256:...`."""

    pin: str
    blob_digest: str
    data: bytes


class SeccompArtifacts:
    """The profiles that this node has pulled."""

    def __init__(
        self, rows: SeccompArtifactRows, content: ContentStore, puller: Puller, library: Library
    ) -> None:
        self._rows, self._content, self._puller, self._library = rows, content, puller, library
        self._known: dict[tuple[str, str], SeccompArtifact] = {}
        self._in_use: Callable[[], Collection[str]] = tuple

    def read(self, blob_digest: str) -> bytes:
        """A profile that is kept. Raises: NotFound, DataLoss. Blocks."""
        return self._content.read(blob_digest, MAX_PROFILE_BYTES)

    def set_in_use(self, in_use: Callable[[], Collection[str]]) -> None:
        """Tell the digests of the profiles that containers of this node were made with."""
        self._in_use = in_use

    async def load(self) -> None:
        """Read what is kept. Call it when containers are known, before the image store is swept."""
        self._known = {one.key: one for one in await self._rows.load()}
        if outdated := self._outdated(time.time_ns()):
            await self._rows.change((), outdated)
            for one in outdated:
                del self._known[one.key]

    def blobs(self) -> set[str]:
        """Digests that the content store must keep."""
        return {one.blob_digest for one in self._known.values()}

    async def profile(self, text: str, namespace: str) -> ArtifactProfile:
        """The profile that a reference stands for, for a pod of a namespace.

        Raises: InvalidArgument for a malformed reference, an artifact that is none of one profile, or a
            malformed profile; and what a pull raises, unless the profile is kept and the registry does
            not answer.
        Cancellation: safe; what was pulled is kept or collected.
        """
        names = await self._puller.candidates(text)
        errors: list[NodedError] = []
        for name in names:
            try:
                return await self._of(name, namespace)
            except (NotFound, PermissionDenied, RegistryUnavailable) as error:
                errors.append(error)
        raise most_telling(errors)

    async def _of(self, name: Reference, namespace: str) -> ArtifactProfile:
        kept = self._find(name, namespace)
        data = await self._read(kept) if kept is not None else None
        if kept is None or data is None:
            return await self._pull(name, namespace, "")
        if not name.digest:
            try:
                with trio.fail_after(ASK_SECONDS):
                    return await self._pull(name, namespace, kept.manifest_digest)
            except (RegistryUnavailable, trio.TooSlowError) as error:
                log.warning(
                    "registry does not answer: the seccomp profile pulled earlier is used",
                    reference=name.canonical,
                    digest=kept.manifest_digest,
                    error=str(error) or f"no answer within {ASK_SECONDS:g} s",
                )
        await self._keep(kept)
        return _profile(name, kept, data)

    def _find(self, name: Reference, namespace: str) -> SeccompArtifact | None:
        kept = self._known.get((name.canonical, namespace))
        if kept is None and name.digest:  # it may have come by a tag
            start = f"{name.repository}:"
            for one in self._known.values():
                if (one.namespace, one.manifest_digest) == (
                    namespace,
                    name.digest,
                ) and one.reference.startswith(start):
                    return one
        return kept

    async def _pull(self, name: Reference, namespace: str, known: str) -> ArtifactProfile:
        owner = f"seccomp-{secrets.token_hex(8)}"
        try:
            pulled = await self._puller.pull_file(
                name, namespace, known=known, limit_bytes=MAX_PROFILE_BYTES, lease=owner
            )
            record = (
                self._known[name.canonical, namespace]
                if pulled is None
                else SeccompArtifact(name.canonical, namespace, pulled.digest, pulled.blob_digest, 0)
            )
            data = await trio.to_thread.run_sync(self._content.read, record.blob_digest, MAX_PROFILE_BYTES)
            parse_artifact_profile(data, str(name))  # what is no profile is not kept
            await self._keep(record)
        finally:
            with trio.move_on_after(_RELEASE_SECONDS, shield=True):
                await self._library.release(owner)
        return _profile(name, record, data)

    async def _read(self, kept: SeccompArtifact) -> bytes | None:
        """The kept bytes, their digest checked; None when they are lost, and so to be pulled again."""
        try:
            return await trio.to_thread.run_sync(self._content.read, kept.blob_digest, MAX_PROFILE_BYTES)
        except (NotFound, DataLoss, InvalidArgument) as error:
            log.warning(
                "kept seccomp profile lost, pulling it again", reference=kept.reference, error=str(error)
            )
            await trio.to_thread.run_sync(self._content.delete, kept.blob_digest)
            return None

    async def _keep(self, record: SeccompArtifact) -> None:
        record = replace(record, used_at_ns=time.time_ns())
        outdated = [one for one in self._outdated(record.used_at_ns) if one.key != record.key]
        with trio.CancelScope(shield=True):
            await self._rows.change([record], outdated)
            for one in outdated:
                self._known.pop(one.key, None)
            self._known[record.key] = record

    def _outdated(self, now_ns: int) -> list[SeccompArtifact]:
        in_use = set(self._in_use())
        unused = [one for one in self._known.values() if one.blob_digest not in in_use]
        unused.sort(key=lambda one: one.used_at_ns, reverse=True)
        oldest_ns = now_ns - int(KEEP_SECONDS * 1e9)
        return [one for place, one in enumerate(unused) if place >= MOST_UNUSED or one.used_at_ns < oldest_ns]


def _profile(name: Reference, record: SeccompArtifact, data: bytes) -> ArtifactProfile:
    return ArtifactProfile(f"{name.repository}@{record.manifest_digest}", record.blob_digest, data)
