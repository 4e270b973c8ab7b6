"""Protobuf messages between bytes and betterproto2. Pure."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, TypeVar

import betterproto2

from noded.wire.wellformed import check

M = TypeVar("M", bound=betterproto2.Message)


def decode(data: bytes, message_type: type[M]) -> M:
    """Decode a message. Raises: ValueError when the bytes are not one of this type."""
    check(data, message_type)
    return message_type.parse(data)


def encode(message: betterproto2.Message) -> bytes:
    """Encode a message; what is not Unicode in its texts becomes "?".

    Python carries bytes that are not UTF-8, e.g. of a program's output or an image's JSON, as lone
    surrogates. One of them must not make a whole list unreadable for kubelet.
    """
    try:
        return bytes(message)
    except UnicodeEncodeError:
        return bytes(_cleaned(message))


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [_cleaned(item) for item in value]
    if isinstance(value, dict):
        return {_cleaned(key): _cleaned(item) for key, item in value.items()}
    if isinstance(value, betterproto2.Message):
        names = [field.name for field in fields(value)]  # type: ignore[arg-type] # generated classes are dataclasses
        return type(value)(**{name: _cleaned(getattr(value, name)) for name in names})
    return value
