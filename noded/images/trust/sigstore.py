"""Signatures that cosign attached to an image: a manifest tagged `sha256-HEX.sig` in its repository.

Each layer of that manifest is a signed text; its signature is an annotation. Checked are signatures by
keys: ECDSA and RSA (PKCS #1 v1.5), both with SHA-256, and Ed25519. Certificates and transparency logs are
not, and policies that want them are refused before this.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from noded.errors import DataLoss, FailedPrecondition, InvalidArgument, NodedError, NotFound
from noded.images.download import SOURCE_ERRORS
from noded.images.refusals import Source, most_telling
from noded.images.registry import RegistryClient
from noded.images.transport import Transport
from noded.wire import digest as digests
from noded.wire.manifest import Manifest, parse_manifest
from noded.wire.signature import MAX_PAYLOAD_BYTES

PAYLOAD_TYPE: Final = "application/vnd.dev.cosign.simplesigning.v1+json"
ANNOTATION: Final = "dev.cosignproject.cosign/signature"
MAX_SIGNATURES: Final = 64
MIN_RSA_BITS: Final = 2048  # fewer are not to be relied on: NIST SP 800-131A


@dataclass(frozen=True, slots=True)
class Attachment:
    """One signed text with its signature."""

    payload: bytes
    signature: bytes


class Attachments:
    """Gets attached signatures."""

    def __init__(self, transport: Transport, client: RegistryClient) -> None:
        self._transport, self._client = transport, client

    async def find(self, sources: Sequence[Source], digest: str) -> list[Attachment]:
        """All signatures attached to a manifest, from the first source that has any.

        Raises: RegistryUnavailable, PermissionDenied... when no source answers.
        Cancellation: safe.
        """
        errors: list[NodedError] = []
        for source in sources:
            try:
                return await self._attached(source, digest)
            except NotFound:
                continue
            except SOURCE_ERRORS as error:
                errors.append(error)
        if errors:
            raise most_telling(errors)
        return []

    async def _attached(self, source: Source, digest: str) -> list[Attachment]:
        tag = f"{digests.algorithm(digest)}-{digests.encoded(digest)}.sig"
        fetched = await self._client.manifest(source, tag)
        try:
            manifest = parse_manifest(fetched.data, fetched.media_type)
        except InvalidArgument as error:
            raise DataLoss(f"{source.subject} has a bad signature manifest {tag}: {error}") from None
        if not isinstance(manifest, Manifest):
            return []
        found = []
        for layer in manifest.layers[:MAX_SIGNATURES]:
            text = layer.annotations.get(ANNOTATION, "")
            if layer.media_type != PAYLOAD_TYPE or not text or layer.size_bytes > MAX_PAYLOAD_BYTES:
                continue
            try:
                signature = base64.b64decode(text, validate=True)
            except binascii.Error:
                continue
            payload = await self._transport.call(self._download, source, layer.digest, layer.size_bytes)
            found.append(Attachment(payload, signature))
        return found

    def _download(self, source: Source, digest: str, size_bytes: int) -> bytes:
        data = bytearray()
        self._client.download(source, digest, size_bytes, data.extend)
        digests.verify(bytes(data), digest, f"{source.subject} sent a signature that")
        return bytes(data)


def is_signed_by(attachment: Attachment, keys: Sequence[bytes]) -> bool:
    """Whether one of the PEM keys made the signature.

    Raises: InvalidArgument for a file that is no such key; FailedPrecondition without `cryptography`.
    """
    try:
        # Here and not at the top: only nodes with such a policy need it, and it takes megabytes.
        from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    except ImportError as error:
        raise FailedPrecondition(
            f"the Python package cryptography is needed to check sigstoreSigned requirements: {error}"
        ) from None
    signature, text = attachment.signature, attachment.payload
    for pem in keys:
        try:
            key = load_pem_public_key(pem)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise InvalidArgument(f"a key file of the policy holds no PEM public key: {error}") from None
        try:
            match key:
                case ec.EllipticCurvePublicKey():
                    key.verify(signature, text, ec.ECDSA(SHA256()))
                case rsa.RSAPublicKey():
                    if key.key_size < MIN_RSA_BITS:
                        raise InvalidArgument(
                            f"an RSA key of the policy has {key.key_size} bits: "
                            f"take one of {MIN_RSA_BITS} or more"
                        )
                    key.verify(signature, text, padding.PKCS1v15(), SHA256())
                case ed25519.Ed25519PublicKey():
                    key.verify(signature, text)
                case _:
                    raise InvalidArgument("a key of the policy is none of ECDSA, RSA and Ed25519")
        except InvalidSignature:
            continue
        return True
    return False
