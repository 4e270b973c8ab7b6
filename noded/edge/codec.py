"""gRPC messages between bytes and betterproto2.

The same codec serves the server and noded's own client (`noded images load`). Responses that the
edge has encoded already pass through as `bytes`.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import betterproto2
from grpclib.encoding.base import CodecBase

from noded.edge.wellformed import Malformed, check
from noded.errors import InvalidArgument


class Codec(CodecBase):
    """Content subtype `proto`."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        """Encode a message; ready bytes are taken as they are."""
        if isinstance(message, bytes):
            return message
        if not isinstance(message, message_type):
            raise TypeError(f"expected {message_type.__name__}, got {type(message).__name__}")
        return encode(message)

    def decode(self, data: bytes, message_type: Any) -> Any:
        """Decode a message. Raises: InvalidArgument when the bytes are not one of this type."""
        try:
            check(data, message_type)
            return message_type.parse(data)
        except (Malformed, UnicodeDecodeError) as error:
            raise InvalidArgument(f"the bytes are not a {message_type.__name__}: {error}") from error


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
