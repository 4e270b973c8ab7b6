"""Decides by the node's policy whether an image may be used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import trio

from noded.errors import FailedPrecondition, InvalidArgument, SignatureValidationFailed
from noded.images.namespace_files import namespace_file
from noded.images.refusals import Source
from noded.images.registry import RegistryClient
from noded.images.transport import Transport
from noded.images.trust import lookaside, openpgp, registries_d
from noded.images.trust.sigstore import Attachments, is_signed_by
from noded.wire.policy import (
    AcceptAnything,
    Policy,
    Reject,
    Requirement,
    Signed,
    Unsupported,
    allows,
    parse_policy,
)
from noded.wire.reference import Reference
from noded.wire.signature import COSIGN, SIMPLE, parse_claim

DEFAULT_POLICY: Final = Path("/etc/containers/policy.json")
MAX_FILE_BYTES: Final = 4 << 20


class Checker:
    """Files are read at each question, so a change counts at once.

    Args:
        policy: containers-policy.json(5); None = the system's, and where there is none every image is
            accepted. A file that is named must exist.
        namespace_policies: directory with `NAMESPACE.json`, which replaces the policy for pods there.
        registries_d: directory of containers-registries.d(5).
    """

    def __init__(
        self,
        transport: Transport,
        client: RegistryClient,
        *,
        policy: Path | None,
        namespace_policies: Path | None,
        registries_d: Path,
    ) -> None:
        self._transport = transport
        self._attachments = Attachments(transport, client)
        self._policy, self._namespace_policies = policy, namespace_policies
        self._registries_d = registries_d

    async def requirements(self, name: Reference | None, namespace: str) -> Sequence[Requirement]:
        """What must be true of an image, after the answers that need no signature have been given.

        Args:
            name: None = it has none, and the policy's default counts.

        Raises: SignatureValidationFailed when the policy rejects it whatever it is, or cannot be read.
        """
        what = "an image without a name" if name is None else str(name)
        try:
            policy, source = await trio.to_thread.run_sync(self._load, namespace)
        except InvalidArgument as error:
            raise SignatureValidationFailed(f"{what} must not be used: {error}") from None
        if policy is None:
            return ()
        scope, found = ("images", policy.default) if name is None else policy.requirements(name)
        for one in found:
            if isinstance(one, Reject):
                raise SignatureValidationFailed(f"{what} must not be used: {source} rejects {scope}")
            if isinstance(one, Unsupported):
                raise SignatureValidationFailed(
                    f"{what} must not be used: {source} asks for {one.reason} for {scope}, "
                    "which noded cannot check"
                )
        return [one for one in found if not isinstance(one, AcceptAnything)]

    async def check(
        self,
        name: Reference,
        digests: Sequence[str],
        sources: Sequence[Source],
        requirements: Sequence[Requirement],
    ) -> None:
        """Look for the signatures that `requirements` ask for.

        Args:
            digests: of the image's manifest and of the indexes that lead to it; a signature of any of
                them covers the image.

        Raises: SignatureValidationFailed; RegistryUnavailable, PermissionDenied when signatures cannot
            be asked for.
        Cancellation: safe.
        """
        for requirement in requirements:
            if not isinstance(requirement, Signed):
                raise SignatureValidationFailed(f"{name} must not be used: its policy cannot be checked")
            try:
                keys = [*await trio.to_thread.run_sync(read_keys, requirement.paths), *requirement.data]
                places = await trio.to_thread.run_sync(registries_d.load, self._registries_d)
                if requirement.kind == "gpg":
                    seen = await self._simple_signed(name, digests, requirement, keys, places)
                else:
                    seen = await self._sigstore_signed(name, digests, requirement, keys, places, sources)
            except (InvalidArgument, FailedPrecondition) as error:
                raise SignatureValidationFailed(f"{name} must not be used: {error}") from None
            if seen is not None:
                raise SignatureValidationFailed(
                    f"{name} must not be used: it has no signature that its policy accepts ({seen})"
                )

    async def _simple_signed(
        self,
        name: Reference,
        digests: Sequence[str],
        requirement: Signed,
        keys: Sequence[bytes],
        places: registries_d.SignaturePlaces,
    ) -> str | None:
        """None when it is signed, else what was seen instead."""
        ring, base = openpgp.keyring(keys), places.lookaside(name)
        seen = f"none in {base}"
        for digest in digests:
            async for message in lookaside.signatures(base, name, digest, self._transport):
                text = await openpgp.open_message(message, ring)
                if text is None:
                    seen = "one by another key, or not valid"
                    continue
                problem = _claim_problem(text, (SIMPLE,), digest, name, requirement)
                if not problem:
                    return None
                seen = problem
        return seen

    async def _sigstore_signed(
        self,
        name: Reference,
        digests: Sequence[str],
        requirement: Signed,
        keys: Sequence[bytes],
        places: registries_d.SignaturePlaces,
        sources: Sequence[Source],
    ) -> str | None:
        if not places.attachments(name):
            return f"use-sigstore-attachments is not set for it in {self._registries_d}"
        seen = "none attached to it in the registry; bundles, cosign 3's default, are not read"
        for digest in digests:
            for attachment in await self._attachments.find(sources, digest):
                if not is_signed_by(attachment, keys):
                    seen = "one by another key, or not valid"
                    continue
                problem = _claim_problem(attachment.payload, (SIMPLE, COSIGN), digest, name, requirement)
                if not problem:
                    return None
                seen = problem
        return seen

    def _load(self, namespace: str) -> tuple[Policy | None, Path]:
        for path, must_exist in self._files(namespace):
            try:
                with path.open("rb") as file:
                    data = file.read(MAX_FILE_BYTES + 1)
            except (FileNotFoundError, NotADirectoryError):
                if must_exist:
                    raise InvalidArgument(f"the policy {path} does not exist") from None
                continue
            except OSError as error:
                raise InvalidArgument(f"the policy {path} cannot be read: {error.strerror}") from None
            try:
                return parse_policy(data), path
            except InvalidArgument as error:
                raise InvalidArgument(f"the policy {path} is not valid: {error}") from None
        return None, DEFAULT_POLICY

    def _files(self, namespace: str) -> Sequence[tuple[Path, bool]]:
        files = [(self._policy or DEFAULT_POLICY, self._policy is not None)]
        if namespace and self._namespace_policies is not None:
            files.insert(0, (namespace_file(self._namespace_policies, namespace), False))
        return files


def _claim_problem(
    text: bytes, kinds: tuple[str, ...], digest: str, name: Reference, requirement: Signed
) -> str:
    try:
        claim = parse_claim(text, kinds)
    except InvalidArgument as error:
        return str(error)
    if claim.manifest_digest != digest:
        return f"one for the manifest {claim.manifest_digest}"
    if not allows(requirement.identity, name, claim.name):
        return f"one for the name {claim.name!r}, which {requirement.identity.rule} does not accept"
    return ""


def read_keys(paths: Sequence[str]) -> list[bytes]:
    """The contents of key files. Blocks.

    Raises: InvalidArgument naming one that cannot be read.
    """
    keys = []
    for path in paths:
        try:
            with Path(path).open("rb") as file:
                keys.append(file.read(MAX_FILE_BYTES))
        except OSError as error:
            raise InvalidArgument(f"key {path} of the policy cannot be read: {error.strerror}") from None
    return keys
