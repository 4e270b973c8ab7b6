"""Checks protobuf bytes against a message class before betterproto2 parses them.

betterproto2 takes truncated fields as they are and stores whatever wire type arrives: a string
field sent as a number becomes an `int`. This check refuses both, so that the code behind the codec
may trust the types of a message. It follows the encoding rules of protobuf.dev/programming-guides/
encoding, without groups (deprecated, and unused by every client).
"""

from __future__ import annotations

from typing import Any

import betterproto2

_VARINT, _FIXED_64, _LENGTH, _FIXED_32 = 0, 1, 2, 5
_FIXED_SIZES = {_FIXED_64: 8, _FIXED_32: 4}
_PACKABLE_TYPES = frozenset(betterproto2.PACKED_TYPES)
_WIRE_TYPES = (
    dict.fromkeys(betterproto2.WIRE_VARINT_TYPES, _VARINT)
    | dict.fromkeys(betterproto2.WIRE_FIXED_64_TYPES, _FIXED_64)
    | dict.fromkeys(betterproto2.WIRE_FIXED_32_TYPES, _FIXED_32)
    | dict.fromkeys(betterproto2.WIRE_LEN_DELIM_TYPES, _LENGTH)
)
_LONGEST_VARINT = 10


class Malformed(ValueError):
    """The bytes are no message of the class; says where."""


def check(data: bytes, message_type: type[betterproto2.Message]) -> None:
    """Walk `data` as a `message_type`, with its submessages. Raises: Malformed."""
    _check(data, 0, len(data), message_type)


def _check(data: bytes, position: int, end: int, message_type: Any) -> None:
    meta = message_type._betterproto
    while position < end:
        start = position
        tag, position = _varint(data, position, end)
        number, wire_type = tag >> 3, tag & 7
        if number == 0:
            raise Malformed(f"field number 0 at byte {start}")
        if wire_type == _LENGTH:
            length, position = _varint(data, position, end)
            stop = position + length
        elif wire_type == _VARINT:
            _, stop = _varint(data, position, end)
        elif wire_type in _FIXED_SIZES:
            stop = position + _FIXED_SIZES[wire_type]
        else:
            raise Malformed(f"wire type {wire_type} at byte {start}")
        if stop > end:
            raise Malformed(f"field {number} at byte {start} is cut off")
        name = meta.field_name_by_number.get(number)
        if name is not None:
            _check_field(data, position, stop, wire_type, name, meta)
        position = stop


def _check_field(data: bytes, position: int, stop: int, wire_type: int, name: str, meta: Any) -> None:
    field: betterproto2.FieldMetadata = meta.meta_by_field_name[name]
    expected = _WIRE_TYPES[field.proto_type]
    if field.proto_type in (betterproto2.TYPE_MESSAGE, betterproto2.TYPE_MAP) and wire_type == _LENGTH:
        _check(data, position, stop, meta.cls_by_field[name])
    elif wire_type == _LENGTH and field.repeated and field.proto_type in _PACKABLE_TYPES:
        _check_packed(data, position, stop, expected, name)
    elif wire_type != expected:
        raise Malformed(f"field {name} has wire type {wire_type} instead of {expected}")


def _check_packed(data: bytes, position: int, stop: int, wire_type: int, name: str) -> None:
    if wire_type == _VARINT:
        while position < stop:
            _, position = _varint(data, position, stop)
    elif (stop - position) % _FIXED_SIZES[wire_type]:
        raise Malformed(f"packed field {name} is cut off")


def _varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    """Read one varint; return its value and the position behind it."""
    value = 0
    for count in range(_LONGEST_VARINT):
        if position >= end:
            raise Malformed(f"a number is cut off at byte {end}")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return value, position
    raise Malformed(f"a number is longer than {_LONGEST_VARINT} bytes at byte {position}")
