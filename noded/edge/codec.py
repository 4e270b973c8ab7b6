"""gRPC messages between bytes and betterproto2.

The same codec serves the server and noded's own client (`noded images load`). Responses that the
edge has encoded already pass through as `bytes`.
"""

from __future__ import annotations

from typing import Any

from grpclib.encoding.base import CodecBase

from noded.errors import InvalidArgument
from noded.wire.messages import decode, encode


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
            return decode(data, message_type)
        except ValueError as error:
            raise InvalidArgument(f"the bytes are not a {message_type.__name__}: {error}") from error
