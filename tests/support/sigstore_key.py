"""A private key in the encrypted form that cosign and skopeo read.

PEM around JSON: scrypt makes a key of the passphrase, NaCl's secretbox (XSalsa20 and Poly1305) seals the
PKCS #8 key with it.
"""

from __future__ import annotations

import base64
import json
import os
import struct

from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.poly1305 import Poly1305

_SIGMA = struct.unpack("<4I", b"expand 32-byte k")
_MASK = 0xFFFFFFFF
_QUARTERS = (
    (0, 4, 8, 12), (5, 9, 13, 1), (10, 14, 2, 6), (15, 3, 7, 11),
    (0, 1, 2, 3), (5, 6, 7, 4), (10, 11, 8, 9), (15, 12, 13, 14),
)  # fmt: skip


def encrypted(key: bytes, passphrase: bytes) -> bytes:
    """The file for a PKCS #8 key in DER."""
    salt, nonce = os.urandom(32), os.urandom(24)
    derived = Scrypt(salt=salt, length=32, n=32768, r=8, p=1).derive(passphrase)
    document = {
        "kdf": {"name": "scrypt", "params": {"N": 32768, "r": 8, "p": 1}, "salt": _b64(salt)},
        "cipher": {"name": "nacl/secretbox", "nonce": _b64(nonce)},
        "ciphertext": _b64(secretbox(key, nonce, derived)),
    }
    kind = "ENCRYPTED COSIGN PRIVATE KEY"
    return f"-----BEGIN {kind}-----\n{_b64(json.dumps(document).encode())}\n-----END {kind}-----\n".encode()


def secretbox(message: bytes, nonce: bytes, key: bytes) -> bytes:
    """NaCl's crypto_secretbox: the tag, then the ciphertext."""
    words = _rounds(_state(key, nonce[:16]))
    subkey = struct.pack("<8I", *(words[i] for i in (0, 5, 10, 15, 6, 7, 8, 9)))
    stream = b""
    for counter in range((32 + len(message)) // 64 + 1):
        state = _state(subkey, nonce[16:] + struct.pack("<Q", counter))
        stream += struct.pack("<16I", *((a + b) & _MASK for a, b in zip(state, _rounds(state), strict=True)))
    sealed = bytes(a ^ b for a, b in zip(message, stream[32:], strict=False))
    return Poly1305.generate_tag(stream[:32], sealed) + sealed


def _state(key: bytes, block: bytes) -> list[int]:
    k, n = struct.unpack("<8I", key), struct.unpack("<4I", block)
    return [_SIGMA[0], *k[:4], _SIGMA[1], *n, _SIGMA[2], *k[4:], _SIGMA[3]]


def _rounds(state: list[int]) -> list[int]:
    x = list(state)
    for _ in range(10):
        for a, b, c, d in _QUARTERS:
            for target, left, right, shift in ((b, a, d, 7), (c, b, a, 9), (d, c, b, 13), (a, d, c, 18)):
                total = (x[left] + x[right]) & _MASK
                x[target] ^= ((total << shift) | (total >> (32 - shift))) & _MASK
    return x


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
