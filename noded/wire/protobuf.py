"""Records of the protobuf wire format, read and written one by one. Pure.

Generic encoders look at every field of every message; where few fields are wanted of many messages, this
is some thirty times cheaper. See protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

VARINT: Final = 0
FIXED64: Final = 1
LENGTH: Final = 2
FIXED32: Final = 5

_FIXED_BYTES: Final = {FIXED64: 8, FIXED32: 4}
_VARINT_BYTES: Final = 10
_MAX_NUMBER: Final = (1 << 29) - 1
_SMALL = [bytes((number,)) for number in range(128)]


def varint(number: int) -> bytes:
    """A number of 0 to 2^64 - 1."""
    if number < 128:
        return _SMALL[number]
    out = bytearray()
    while number >= 128:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


# Field n with wire type 0 (number) and 2 (length).
_NUMBER = [varint(n << 3 | VARINT) for n in range(32)]
_LENGTH = [varint(n << 3 | LENGTH) for n in range(32)]


def record(field: int, payload: bytes) -> bytes:
    """A string, bytes or message field, of a number below 32."""
    return _LENGTH[field] + varint(len(payload)) + payload


def number(field: int, value: int) -> bytes:
    """An integer field; zero is the default and not written."""
    return _NUMBER[field] + varint(value) if value else b""


def value(field: int, amount: int | None) -> bytes:
    """A UInt64Value field: None is absent, 0 is there."""
    if amount is None:
        return b""
    inner = b"\x08" + varint(amount) if amount else b""
    return _LENGTH[field] + _SMALL[len(inner)] + inner


def scan(data: bytes) -> Iterator[tuple[int, int, Any]]:
    """Yield (field number, wire type, value): an unsigned int for varints, else bytes.

    Raises: ValueError saying at which byte and what is wrong.
    """
    position = 0
    while position < len(data):
        start = position
        key, position = _varint(data, position)
        number, wire = key >> 3, key & 7
        if not 1 <= number <= _MAX_NUMBER:
            raise ValueError(f"field number {number} at byte {start} is not possible")
        if wire == VARINT:
            value, position = _varint(data, position)
            yield number, wire, value
            continue
        if wire == LENGTH:
            length, position = _varint(data, position)
        elif wire in _FIXED_BYTES:
            length = _FIXED_BYTES[wire]
        else:
            raise ValueError(f"field {number} at byte {start} has wire type {wire}, which is none of proto3")
        end = position + length
        if end > len(data):
            raise ValueError(
                f"field {number} at byte {start} says {length} bytes, but {len(data) - position} are left"
            )
        yield number, wire, data[position:end]
        position = end


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for index in range(_VARINT_BYTES):
        if position + index >= len(data):
            raise ValueError(f"the number at byte {position} is cut")
        byte = data[position + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value & ((1 << 64) - 1), position + index + 1
    raise ValueError(f"the number at byte {position} has more than {_VARINT_BYTES} bytes")
