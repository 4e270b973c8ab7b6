"""ttrpc, the small RPC protocol of containerd's shims: frames, and what is in them. Pure.

A frame is a header of ten bytes, big-endian, and its data (github.com/containerd/ttrpc, PROTOCOL.md):

    length of the data (4) | stream id (4) | type (1) | flags (1) | data

Clients number their calls 1, 3, 5... A unary call is one request frame and one response frame of the
same stream. Limits: 4 MiB of data in a frame.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, Final

from noded.wire.ttrpc_protobuf import Message, integer, message, messages, octets, string

MAX_DATA_BYTES: Final = 4 << 20

_HEADER: Final = struct.Struct(">IIBB")


class FrameType(IntEnum):
    """What a frame carries. DATA belongs to streaming calls, which shims' task services do not have."""

    REQUEST = 1
    RESPONSE = 2
    DATA = 3


class Code(IntEnum):
    """Status codes: gRPC's (grpc/grpc doc/statuscodes.md)."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame. `type` is a number, since a peer may send what `FrameType` does not name."""

    stream_id: int
    type: int
    data: bytes
    flags: int = 0

    def encode(self) -> bytes:
        """Raises: ValueError when the data is larger than the protocol allows."""
        if len(self.data) > MAX_DATA_BYTES:
            raise ValueError(f"a message of {len(self.data)} bytes is larger than ttrpc's {MAX_DATA_BYTES}")
        return _HEADER.pack(len(self.data), self.stream_id, self.type, self.flags) + self.data


class FrameReader:
    """Cuts a byte stream into frames. Holds at most one incomplete frame and what was fed with it."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """Take bytes as they arrive; return the frames that are complete now.

        Raises: ValueError when a header announces more than the protocol allows; the stream is then
            beyond repair, since the place of the next header is unknown.
        """
        self._buffer += data
        frames = []
        while len(self._buffer) >= _HEADER.size:
            length, stream_id, kind, flags = _HEADER.unpack_from(self._buffer)
            if length > MAX_DATA_BYTES:
                raise ValueError(
                    f"a frame header announces {length} bytes, more than ttrpc's {MAX_DATA_BYTES}"
                )
            end = _HEADER.size + length
            if len(self._buffer) < end:
                break
            frames.append(Frame(stream_id, kind, bytes(self._buffer[_HEADER.size : end]), flags))
            del self._buffer[:end]
        return frames

    @property
    def incomplete(self) -> bool:
        """Whether the stream, if it ended now, would end in the middle of a frame."""
        return bool(self._buffer)


@dataclass(frozen=True, slots=True)
class KeyValue(Message):
    """One piece of a request's metadata."""

    NAME: ClassVar[str] = "ttrpc.KeyValue"
    key: str = string(1)
    value: str = string(2)


@dataclass(frozen=True, slots=True)
class Request(Message):
    """A call. `timeout_nano` 0 = none."""

    NAME: ClassVar[str] = "ttrpc.Request"
    service: str = string(1)
    method: str = string(2)
    payload: bytes = octets(3)
    timeout_nano: int = integer(4, "int64")
    metadata: tuple[KeyValue, ...] = messages(5, KeyValue)


@dataclass(frozen=True, slots=True)
class Status(Message):
    """google.rpc.Status without its details."""

    NAME: ClassVar[str] = "google.rpc.Status"
    code: int = integer(1, "int32")
    message: str = string(2)


@dataclass(frozen=True, slots=True)
class Response(Message):
    """An answer. No status, or one with code 0, is success."""

    NAME: ClassVar[str] = "ttrpc.Response"
    status: Status | None = message(1, Status)
    payload: bytes = octets(2)
