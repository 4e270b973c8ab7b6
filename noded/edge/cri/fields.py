"""Checks of single request fields; every complaint names the field by its CRI path."""

from __future__ import annotations

from enum import IntEnum
from typing import TypeVar

from noded.errors import InvalidArgument
from noded.proto.runtime import v1

E = TypeVar("E", bound=IntEnum)
M = TypeVar("M")


def required(value: str, path: str) -> str:
    """A string that must not be empty."""
    if not value:
        raise InvalidArgument(f"{path}: must not be empty")
    return value


def present(message: M | None, path: str) -> M:
    """A submessage that must be there. An empty message is present."""
    if message is None:
        raise InvalidArgument(f"{path}: is missing")
    return message


def enum(kind: type[E], value: int, path: str) -> E:
    """An enumeration value that this version knows."""
    try:
        return kind(int(value))
    except ValueError:
        raise InvalidArgument(f"{path}: unknown value {int(value)}") from None


def non_negative(value: int, path: str) -> int:
    if value < 0:
        raise InvalidArgument(f"{path}: {value} is negative")
    return value


def optional_id(value: v1.Int64Value | None, path: str) -> int | None:
    """A user or group id; absent is not 0."""
    return None if value is None else non_negative(value.value, f"{path}.value")


def ids(values: list[int], path: str) -> tuple[int, ...]:
    return tuple(non_negative(value, f"{path}[{index}]") for index, value in enumerate(values))
