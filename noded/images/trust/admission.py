"""Whether the policy of now still accepts an image that is here, asked before each use of it.

A pull has checked the image, but by the policy of then and for the namespace of then; archives and
additional stores bring images without a pull. Rules that need no signature are answered from the policy
file at each question. Verdicts on signatures are kept on disk, so that containers start while the registry
is down: each for an image, a name, a rule and the keys in it, so that a change of any of them counts.

    root/verdicts/HEX    empty; HEX: digest of all that
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import structlog
import trio

from noded.errors import InvalidArgument, SignatureValidationFailed
from noded.host import files
from noded.images.names import Meanings
from noded.images.refusals import Source
from noded.images.trust.checker import Checker, read_keys
from noded.model.image import Image
from noded.wire import reference as references
from noded.wire.policy import Requirement, Signed
from noded.wire.reference import Reference

log = structlog.get_logger(__name__)

_MOST_VERDICTS = 10_000  # then all are forgotten, and asked for again when needed


class Admission:
    """Asks the policy about images.

    Args:
        sources: where to ask for the signatures of a name, for pods of a namespace.
        meanings: of a short name.
        verdicts: directory to keep verdicts in; made when there are any.
    """

    def __init__(
        self,
        checker: Checker,
        sources: Callable[[Reference, str], Awaitable[Sequence[Source]]],
        meanings: Meanings,
        verdicts: Path,
    ) -> None:
        self._checker, self._sources, self._meanings = checker, sources, meanings
        self._verdicts = verdicts

    async def admit(self, image: Image, asked_as: str, namespace: str) -> None:
        """Refuse an image that must not be used.

        Args:
            asked_as: the name that the client gave; where it is an ID or no name of the image, one
                accepted name of the image's own is enough.
            namespace: of the pod, "" if none.

        Raises: SignatureValidationFailed; RegistryUnavailable, PermissionDenied when signatures must be
            asked for and cannot.
        Cancellation: safe.
        """
        own = {*image.tags, *image.digests}
        names = [name for name in self._meant(asked_as) if name.canonical in own]
        names = names or [references.parse(name) for name in sorted(own)]
        await self._any(names, lambda name: _digests(image, name), namespace)

    async def accept(self, names: Sequence[Reference], digests: Sequence[str], namespace: str) -> None:
        """`admit`, for what is not in the store yet."""
        await self._any(names, lambda name: digests, namespace)

    async def _any(
        self,
        names: Sequence[Reference],
        digests_of: Callable[[Reference | None], Sequence[str]],
        namespace: str,
    ) -> None:
        """Without names the policy's default counts."""
        refusal: SignatureValidationFailed | None = None
        for name in names or (None,):
            try:
                await self._accept(name, digests_of(name), namespace)
                return
            except SignatureValidationFailed as error:
                refusal = refusal or error
        if refusal is not None:
            raise refusal

    async def _accept(self, name: Reference | None, digests: Sequence[str], namespace: str) -> None:
        required = await self._checker.requirements(name, namespace)
        if not required:
            return
        if name is None:
            raise SignatureValidationFailed(
                "an image without a name must not be used: the policy asks for signatures, and those are "
                "made for a name"
            )
        verdict = await trio.to_thread.run_sync(self._verdict, name, digests, required)
        if verdict is not None and await trio.to_thread.run_sync(verdict.exists):
            return
        await self._checker.check(name, digests, await self._sources(name, namespace), required)
        if verdict is not None:
            await trio.to_thread.run_sync(self._keep, verdict)

    async def keep(self, name: Reference, digests: Sequence[str], required: Sequence[Requirement]) -> None:
        """Remember that a pull has just checked an image."""
        if required:
            verdict = await trio.to_thread.run_sync(self._verdict, name, digests, required)
            if verdict is not None:
                await trio.to_thread.run_sync(self._keep, verdict)

    def _verdict(
        self, name: Reference, digests: Sequence[str], required: Sequence[Requirement]
    ) -> Path | None:
        digest = hashlib.sha256()
        try:
            keys = [read_keys(one.paths) for one in required if isinstance(one, Signed)]
        except InvalidArgument:
            return None  # the check will say it
        for part in (name.canonical, sorted(digests), list(required), keys):
            digest.update(repr(part).encode(errors="surrogateescape") + b"\0")
        return self._verdicts / digest.hexdigest()

    def _keep(self, verdict: Path) -> None:
        try:
            self._verdicts.mkdir(mode=0o700, exist_ok=True)
            kept = list(self._verdicts.iterdir())
            if len(kept) >= _MOST_VERDICTS:
                for path in kept:
                    path.unlink(missing_ok=True)
            files.publish(verdict, b"", 0o600, durable=False)
        except Exception as error:  # a full disk must not stop what the policy has accepted
            log.warning("verdict on an image not kept", path=str(verdict), error=str(error))

    def _meant(self, text: str) -> Iterable[Reference]:
        if text and not references.is_image_id(text):
            with suppress(InvalidArgument):
                return self._meanings(text)
        return ()


def _digests(image: Image, name: Reference | None) -> Sequence[str]:
    """The manifests and indexes that a name of an image stands for: a signature of any covers it."""
    named = (text.partition("@") for text in image.digests)
    led = [digest for repository, _, digest in named if name is not None and repository == name.repository]
    return list(dict.fromkeys((*led, image.manifest_digest)))
