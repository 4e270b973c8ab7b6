"""The protobuf wire format for the few small messages of shims, declared as dataclasses. Pure.

    @dataclass(frozen=True, slots=True)
    class StartRequest(Message):
        NAME: ClassVar[str] = "containerd.task.v2.StartRequest"
        id: str = string(1)

The daemon's CRI messages are generated; these are not: they are few and flat, some shims are far
from valid, and what is here tells exactly what is wrong with their bytes. Tests compare every field
with the table of facts, and every encoding with Google's implementation.

proto3 rules hold (protobuf.dev/programming-guides/encoding): defaults are not written, unknown
fields and known ones of another wire type are skipped, the last of several scalars counts, several
parts of one submessage are merged.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Final, TypeVar

from noded.wire.protobuf import LENGTH, VARINT, scan

_SHOWN_BYTES: Final = 16

M = TypeVar("M", bound="Message")


@dataclass(frozen=True, slots=True)
class Kind:
    """How one field is written. `word` is its type in a .proto file; "message" goes with `of`."""

    number: int
    word: str
    of: type[Message] | None = None
    repeated: bool = False


class Message:
    """Base of messages: frozen dataclasses whose fields are made by the functions below."""

    __slots__ = ()
    NAME: ClassVar[str] = ""

    def encode(self) -> bytes:
        """Return the message's bytes; equal messages give equal bytes."""
        out = bytearray()
        for name, kind in kinds(type(self)).items():
            value = getattr(self, name)
            if kind.word == "map":
                for key in sorted(value):
                    _put_bytes(out, kind.number, _Entry(key, value[key]).encode())
            elif kind.repeated:
                for item in value:
                    _put(out, kind, item)
            elif value is not None and (kind.word == "message" or value):
                _put(out, kind, value)
        return bytes(out)

    @classmethod
    def decode(cls: type[M], data: bytes) -> M:
        """Raises: ValueError naming message and field when `data` is no such message."""
        by_number = {kind.number: (name, kind) for name, kind in kinds(cls).items()}
        values: dict[str, Any] = {}
        parts: dict[str, bytes] = {}
        try:
            for number, wire, raw in scan(data):
                name, kind = by_number.get(number, ("", None))
                if kind is None or wire != _wire_type(kind):
                    continue
                if kind.word == "map":
                    entry = _Entry.decode(raw)
                    values.setdefault(name, {})[entry.key] = entry.value
                elif kind.repeated:
                    values.setdefault(name, []).append(_value(kind, raw, cls, name))
                elif kind.word == "message":
                    parts[name] = parts.get(name, b"") + raw
                else:
                    values[name] = _value(kind, raw, cls, name)
        except ValueError as error:
            raise ValueError(f"{cls.NAME or cls.__name__}: {error}") from None
        for name, raw in parts.items():
            values[name] = _value(kinds(cls)[name], raw, cls, name)
        for name, value in values.items():
            if isinstance(value, list):
                values[name] = tuple(value)
        return cls(**values)


def string(number: int) -> Any:
    """A `string` field; its value is `str`."""
    return _field(Kind(number, "string"), "")


def octets(number: int) -> Any:
    """A `bytes` field."""
    return _field(Kind(number, "bytes"), b"")


def boolean(number: int) -> Any:
    """A `bool` field."""
    return _field(Kind(number, "bool"), False)


def integer(number: int, word: str) -> Any:
    """An int32, int64, uint32, uint64 or enum field; its value is `int`."""
    return _field(Kind(number, word), 0)


def message(number: int, of: type[Message]) -> Any:
    """A submessage; None when it is absent."""
    return _field(Kind(number, "message", of), None)


def messages(number: int, of: type[Message]) -> Any:
    """Repeated submessages; the value is a tuple."""
    return _field(Kind(number, "message", of, repeated=True), ())


def strings(number: int) -> Any:
    """Repeated strings; the value is a tuple."""
    return _field(Kind(number, "string", repeated=True), ())


def string_map(number: int) -> Any:
    """A map<string,string>; the value is a mapping."""
    return dataclasses.field(default_factory=dict, metadata={"kind": Kind(number, "map")})


def _field(kind: Kind, default: Any) -> Any:
    return dataclasses.field(default=default, metadata={"kind": kind})


@cache
def _kinds(cls: Any) -> dict[str, Kind]:
    found = {field.name: field.metadata["kind"] for field in dataclasses.fields(cls)}
    return dict(sorted(found.items(), key=lambda item: item[1].number))


def kinds(cls: type[Message]) -> dict[str, Kind]:
    """The declared fields of a message, by name, in order of their numbers."""
    declared: Any = cls
    return _kinds(declared)


def put_varint(out: bytearray, value: int) -> None:
    """Append a number; negative ones as 64-bit two's complement, as int32 and int64 want it."""
    value &= (1 << 64) - 1
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def _put(out: bytearray, kind: Kind, value: Any) -> None:
    if kind.word in ("message", "string"):
        _put_bytes(out, kind.number, value.encode())
    elif kind.word == "bytes":
        _put_bytes(out, kind.number, value)
    else:
        put_varint(out, kind.number << 3 | VARINT)
        put_varint(out, int(value))


def _put_bytes(out: bytearray, number: int, value: bytes) -> None:
    put_varint(out, number << 3 | LENGTH)
    put_varint(out, len(value))
    out += value


def _wire_type(kind: Kind) -> int:
    return LENGTH if kind.word in ("string", "bytes", "message", "map") else VARINT


def _value(kind: Kind, raw: Any, cls: type[Message], name: str) -> Any:
    match kind.word:
        case "message":
            assert kind.of is not None
            return kind.of.decode(raw)
        case "string":
            try:
                return raw.decode()
            except UnicodeDecodeError:
                shown = raw[:_SHOWN_BYTES]
                raise ValueError(f"{name} is not UTF-8: {shown!r}") from None
        case "bytes":
            return raw
        case "bool":
            return raw != 0
        case "uint32":
            return raw & 0xFFFFFFFF
        case "uint64":
            return raw
        case "int64":
            return _signed(raw, 64)
        case _:  # int32 and enums
            return _signed(raw & 0xFFFFFFFF, 32)


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value


@dataclass(frozen=True, slots=True)
class _Entry(Message):
    """One entry of a map<string,string>."""

    key: str = string(1)
    value: str = string(2)

    def encode(self) -> bytes:
        # Google's implementations write both parts of an entry, defaults too.
        out = bytearray()
        _put_bytes(out, 1, self.key.encode())
        _put_bytes(out, 2, self.value.encode())
        return bytes(out)
