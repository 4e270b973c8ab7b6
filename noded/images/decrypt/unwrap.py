"""Opens a JWE with a private key: RSA-OAEP or ECDH-ES+A256KW, then AES in Galois/counter mode.

These are what ocicrypt writes; RSA-OAEP-256 costs nothing more.
"""

from __future__ import annotations

from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap

from noded.errors import InvalidArgument
from noded.wire.descriptor import as_object, as_text
from noded.wire.jwe import Jwe, Recipient, decode

_OAEP: Final[dict[str, type[hashes.HashAlgorithm]]] = {
    "RSA-OAEP": hashes.SHA1,  # as RFC 7518 §4.3 has it; OAEP does not need collision resistance
    "RSA-OAEP-256": hashes.SHA256,
}
_KEY_WRAPS: Final = {"ECDH-ES+A128KW": 16, "ECDH-ES+A192KW": 24, "ECDH-ES+A256KW": 32}
_CONTENT_KEYS: Final = {"A128GCM": 16, "A192GCM": 24, "A256GCM": 32}
_CURVES: Final[dict[str, type[ec.EllipticCurve]]] = {
    "P-256": ec.SECP256R1,
    "P-384": ec.SECP384R1,
    "P-521": ec.SECP521R1,
}


def open_jwe(jwe: Jwe, key: PrivateKeyTypes) -> bytes | None:
    """The plaintext, or None when this is no key of any recipient.

    Raises: InvalidArgument for a JWE that is not well formed.
    """
    for recipient in jwe.recipients:
        size = _CONTENT_KEYS.get(as_text(recipient.header.get("enc") or "", "enc"))
        content_key = _content_key(recipient, key) if size else None
        if content_key is None or len(content_key) != size:
            continue
        try:
            return AESGCM(content_key).decrypt(jwe.iv, jwe.ciphertext + jwe.tag, jwe.authenticated)
        except (InvalidTag, ValueError):
            continue
    return None


def _content_key(recipient: Recipient, key: PrivateKeyTypes) -> bytes | None:
    algorithm = as_text(recipient.header.get("alg") or "", "alg")
    try:
        if isinstance(key, rsa.RSAPrivateKey) and algorithm in _OAEP:
            hashed = _OAEP[algorithm]()
            return key.decrypt(
                recipient.encrypted_key, padding.OAEP(padding.MGF1(hashed), algorithm=hashed, label=None)
            )
        if isinstance(key, ec.EllipticCurvePrivateKey) and algorithm in _KEY_WRAPS:
            peer = _ephemeral(recipient.header.get("epk"))
            if peer.curve.name != key.curve.name:
                return None
            shared = key.exchange(ec.ECDH(), peer)
            wrapping = _derive(shared, algorithm, recipient, _KEY_WRAPS[algorithm])
            return aes_key_unwrap(wrapping, recipient.encrypted_key)
    except (ValueError, InvalidUnwrap):  # for somebody else
        return None
    return None


def _ephemeral(value: Any) -> ec.EllipticCurvePublicKey:
    fields = as_object(value, "epk")
    curve = _CURVES.get(as_text(fields.get("crv") or "", "epk.crv"))
    if curve is None:
        raise InvalidArgument(f"epk.crv {fields.get('crv')!r} is no curve noded knows")
    x, y = (int.from_bytes(decode(fields.get(name, ""), f"epk.{name}"), "big") for name in ("x", "y"))
    return ec.EllipticCurvePublicNumbers(x, y, curve()).public_key()


def _derive(shared: bytes, algorithm: str, recipient: Recipient, size: int) -> bytes:
    """RFC 7518 §4.6.2."""
    parties = (decode(recipient.header.get(name) or "", name) for name in ("apu", "apv"))
    info = b"".join(len(part).to_bytes(4, "big") + part for part in (algorithm.encode(), *parties)) + (
        size * 8
    ).to_bytes(4, "big")
    return ConcatKDFHash(hashes.SHA256(), size, info).derive(shared)
