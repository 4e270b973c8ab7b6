"""Encrypted layers as ocicrypt makes them. Pure.

A media type that ends with `+encrypted`; the annotation `…enc.keys.SCHEME` has, for each group of
recipients, the wrapped private options (the key), in base64 and separated by commas; `…enc.pubopts` has the
public ones, base64 of JSON. The only cipher is AES-256 in counter mode, then HMAC-SHA-256 with the same
key over the ciphertext.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from noded.errors import InvalidArgument
from noded.wire.descriptor import as_object, as_text

ENCRYPTED: Final = "+encrypted"
CIPHER: Final = "AES_256_CTR_HMAC_SHA256"
KEYS_PREFIX: Final = "org.opencontainers.image.enc.keys."
JWE_KEYS: Final = f"{KEYS_PREFIX}jwe"
PUBLIC_OPTIONS: Final = "org.opencontainers.image.enc.pubopts"
MAX_WRAPPED: Final = 64  # groups of recipients; each is tried with each key


@dataclass(frozen=True, slots=True)
class LayerKey:
    """What opens one layer: 32 bytes of key, 16 of the first counter, 32 of the MAC."""

    key: bytes
    nonce: bytes
    mac: bytes

    def __repr__(self) -> str:
        return "LayerKey(…)"  # never in a log or a traceback


def is_encrypted(media_type: str) -> bool:
    return media_type.endswith(ENCRYPTED)


def schemes(annotations: Mapping[str, str]) -> tuple[str, ...]:
    """For what kinds of keys a layer is encrypted, such as `jwe`."""
    return tuple(sorted(key.removeprefix(KEYS_PREFIX) for key in annotations if key.startswith(KEYS_PREFIX)))


def wrapped_keys(text: str) -> tuple[bytes, ...]:
    """The parts of a keys annotation. Raises: InvalidArgument."""
    parts = text.split(",")
    if len(parts) > MAX_WRAPPED:
        raise InvalidArgument(f"it is encrypted for {len(parts)} groups of keys, more than {MAX_WRAPPED}")
    return tuple(_bytes(part, JWE_KEYS) for part in parts)


def layer_key(public_text: str, private: bytes) -> LayerKey:
    """Put together public options (the annotation) and private ones (unwrapped).

    Raises: InvalidArgument naming what is wrong.
    """
    public = _json(_bytes(public_text, PUBLIC_OPTIONS), "the public options")
    cipher = as_text(public.get("cipher") or "", "cipher")
    if cipher != CIPHER:
        raise InvalidArgument(f"it is encrypted by {cipher!r}, noded knows {CIPHER} only")
    secret = _json(private, "the private options")
    # As ocicrypt does: what is public goes first. Its versions differ in where they put the MAC.
    options = {**_options(secret), **_options(public)}
    return LayerKey(
        key=_sized(secret.get("symkey"), "symkey", 32),
        nonce=_sized(options.get("nonce"), "nonce", 16),
        mac=_sized(public.get("hmac") or options.get("hmac"), "hmac", 32),
    )


def _options(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    return as_object(fields.get("cipheroptions") or {}, "cipheroptions")


def _sized(value: Any, name: str, size: int) -> bytes:
    found = _bytes(as_text(value or "", name), name)
    if len(found) != size:
        raise InvalidArgument(f"{name} has {len(found)} bytes, not {size}")
    return found


def _bytes(text: str, where: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        raise InvalidArgument(f"{where} is not base64") from None


def _json(data: bytes, what: str) -> Mapping[str, Any]:
    try:
        return as_object(json.loads(data), what)
    except (ValueError, RecursionError):
        # Not what the parser says, which may quote a key.
        raise InvalidArgument(f"{what} are not JSON") from None
