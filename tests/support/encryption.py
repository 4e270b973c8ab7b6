"""Images encrypted as the ocicrypt specification says, by the tests' own code.

Each layer has a random key; a JWE with that key for each group of recipients is in its annotations.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

from tests.support.images import Image, sha256

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def encrypt(
    image: Image,
    groups: Sequence[Sequence[PrivateKey]],
    *,
    only: int | None = None,
    flip: int | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Image:
    """The image with encrypted layers; each group of recipients gets a JWE of its own."""
    manifest = json.loads(image.manifest)
    blobs = {image.id: image.config}
    digests = []
    for number, layer in enumerate(manifest["layers"]):
        data = image.blobs[layer["digest"]]
        if only in (None, number):
            key, nonce = os.urandom(32), os.urandom(16)
            secret = {"symkey": _b64(key), "digest": sha256(data), "cipheroptions": {"nonce": _b64(nonce)}}
            context = Cipher(algorithms.AES(key), modes.CTR(nonce)).encryptor()
            data = context.update(data)
            code = hmac.HMAC(key, hashes.SHA256())
            code.update(data)
            public = {
                "cipher": "AES_256_CTR_HMAC_SHA256",
                "hmac": None,
                "cipheroptions": {"hmac": _b64(code.finalize())},
            }
            jwes = (_b64(json.dumps(_jwe(json.dumps(secret).encode(), group)).encode()) for group in groups)
            layer["annotations"] = {
                "org.opencontainers.image.enc.keys.jwe": ",".join(jwes),
                "org.opencontainers.image.enc.pubopts": _b64(json.dumps(public).encode()),
                **(annotations or {}),
            }
            layer["mediaType"] += "+encrypted"
            if flip is not None:
                data = data[:flip] + bytes([data[flip] ^ 1]) + data[flip + 1 :]
        layer.update(digest=sha256(data), size=len(data))
        blobs[sha256(data)] = data
        digests.append(sha256(data))
    return Image(json.dumps(manifest).encode(), image.media_type, image.config, blobs, tuple(digests))


def _jwe(plaintext: bytes, recipients: Sequence[PrivateKey]) -> dict[str, Any]:
    """RFC 7516: flattened for one recipient, general for more."""
    content_key, iv = os.urandom(32), os.urandom(12)
    protected = _b64url(b'{"enc":"A256GCM"}')
    sealed = AESGCM(content_key).encrypt(iv, plaintext, protected.encode())
    wrapped = [_wrap(content_key, key) for key in recipients]
    one = wrapped[0] if len(wrapped) == 1 else {"recipients": wrapped}
    parts = {"iv": iv, "ciphertext": sealed[:-16], "tag": sealed[-16:]}
    return {"protected": protected, **{name: _b64url(part) for name, part in parts.items()}, **one}


def _wrap(content_key: bytes, key: PrivateKey) -> dict[str, Any]:
    if isinstance(key, rsa.RSAPrivateKey):
        oaep = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)
        sealed = key.public_key().encrypt(content_key, oaep)
        return {"header": {"alg": "RSA-OAEP"}, "encrypted_key": _b64url(sealed)}
    ephemeral = ec.generate_private_key(key.curve)
    numbers, size = ephemeral.public_key().public_numbers(), (key.curve.key_size + 7) // 8
    name = b"ECDH-ES+A256KW"
    info = len(name).to_bytes(4, "big") + name + bytes(8) + (256).to_bytes(4, "big")
    derived = ConcatKDFHash(hashes.SHA256(), 32, info).derive(ephemeral.exchange(ec.ECDH(), key.public_key()))
    point = {"kty": "EC", "crv": {256: "P-256", 521: "P-521"}[key.curve.key_size]}
    point |= {axis: _b64url(getattr(numbers, axis).to_bytes(size, "big")) for axis in ("x", "y")}
    return {
        "header": {"alg": name.decode(), "epk": point},
        "encrypted_key": _b64url(aes_key_wrap(derived, content_key)),
    }


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
