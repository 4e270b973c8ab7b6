"""JSON Web Encryption in its JSON forms (RFC 7516 §7.2), taken apart but not opened. Pure."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from noded.errors import InvalidArgument
from noded.wire.descriptor import as_list, as_object, as_text


@dataclass(frozen=True, slots=True)
class Recipient:
    """One way to open it.

    Args:
        header: protected, shared and own parameters, which never overlap.
        encrypted_key: the content key, for this recipient only.
    """

    header: Mapping[str, Any]
    encrypted_key: bytes


@dataclass(frozen=True, slots=True)
class Jwe:
    """Args:
    authenticated: additional data that the tag covers, beside the ciphertext.
    """

    recipients: tuple[Recipient, ...]
    iv: bytes
    ciphertext: bytes
    tag: bytes
    authenticated: bytes


def parse_jwe(data: bytes) -> Jwe:
    """Read the general or the flattened JSON serialization.

    Raises: InvalidArgument naming the wrong member.
    """
    try:
        fields = as_object(json.loads(data), "JWE")
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"JWE is not JSON: {error}") from None
    protected_text = as_text(fields.get("protected") or "", "protected")
    shared = as_object(fields.get("unprotected") or {}, "unprotected")
    protected = _header(protected_text)
    one = [fields] if "recipients" not in fields else as_list(fields["recipients"], "recipients")
    recipients = []
    for number, item in enumerate(one):
        where = f"recipients[{number}]"
        own = as_object(item, where)
        header = as_object(own.get("header") or {}, f"{where}.header")
        merged = {**header, **shared, **protected}
        if len(merged) != len(header) + len(shared) + len(protected):
            raise InvalidArgument(f"{where}: a header parameter is given twice")
        if "crit" in merged or "zip" in merged:
            raise InvalidArgument(f"{where}: critical extensions and compression are not understood")
        recipients.append(Recipient(merged, decode(own.get("encrypted_key", ""), f"{where}.encrypted_key")))
    authenticated = protected_text
    if "aad" in fields:
        authenticated += "." + as_text(fields["aad"], "aad")
    return Jwe(
        recipients=tuple(recipients),
        iv=decode(fields.get("iv", ""), "iv"),
        ciphertext=decode(fields.get("ciphertext", ""), "ciphertext"),
        tag=decode(fields.get("tag", ""), "tag"),
        authenticated=authenticated.encode(),
    )


def decode(value: Any, where: str) -> bytes:
    """The bytes of a base64url text without padding (RFC 7515 §2).

    Raises: InvalidArgument naming `where`.
    """
    text = as_text(value, where)
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raise InvalidArgument(f"{where} is not base64url") from None


def _header(text: str) -> Mapping[str, Any]:
    if not text:
        return {}
    try:
        return as_object(json.loads(decode(text, "protected")), "protected")
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"protected is not JSON: {error}") from None
