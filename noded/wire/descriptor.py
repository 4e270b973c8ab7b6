"""OCI descriptors and platforms (image-spec descriptor.md, image-index.md), read strictly. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from noded.errors import InvalidArgument
from noded.wire import digest as digests

MAX_SIZE: Final = 1 << 40  # bytes; a larger blob is a mistake or an attack, and fits no node


@dataclass(frozen=True, slots=True)
class Platform:
    """What an image runs on, in GOOS and GOARCH names; "" = not said."""

    os: str = ""
    architecture: str = ""
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Names a blob by digest, with its exact size in bytes."""

    media_type: str
    digest: str
    size_bytes: int
    platform: Platform | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    artifact_type: str = ""


def parse_descriptor(value: Any, where: str) -> Descriptor:
    """Read one descriptor of a JSON document; `where` names it in errors, such as `layers[2]`.

    Raises: InvalidArgument.
    """
    fields = as_object(value, where)
    try:
        digest = digests.parse(as_text(fields.get("digest", ""), f"{where}.digest"))
    except InvalidArgument as error:
        raise InvalidArgument(f"{where}.digest: {error}") from None
    size = fields.get("size")
    if type(size) is not int or not 0 <= size <= MAX_SIZE:
        raise InvalidArgument(f"{where}.size is {size!r}, not a number of bytes up to {MAX_SIZE}")
    platform = fields.get("platform")
    return Descriptor(
        media_type=as_text(fields.get("mediaType") or "", f"{where}.mediaType"),
        digest=digest,
        size_bytes=size,
        platform=None if platform is None else _platform(platform, f"{where}.platform"),
        annotations=as_text_map(fields.get("annotations"), f"{where}.annotations"),
        artifact_type=as_text(fields.get("artifactType") or "", f"{where}.artifactType"),
    )


def _platform(value: Any, where: str) -> Platform:
    fields = as_object(value, where)
    return Platform(
        os=as_text(fields.get("os") or "", f"{where}.os"),
        architecture=as_text(fields.get("architecture") or "", f"{where}.architecture"),
        variant=as_text(fields.get("variant") or "", f"{where}.variant"),
    )


def as_object(value: Any, where: str) -> Mapping[str, Any]:
    """`value` if it is a JSON object. Raises: InvalidArgument naming `where`."""
    if not isinstance(value, dict):
        raise InvalidArgument(f"{where} is {_kind(value)}, not an object")
    return value


def as_text(value: Any, where: str) -> str:
    """`value` if it is a JSON string. Raises: InvalidArgument naming `where`."""
    if not isinstance(value, str):
        raise InvalidArgument(f"{where} is {_kind(value)}, not a string")
    try:
        value.encode()
    except UnicodeEncodeError:  # JSON can escape half a surrogate pair, which no file or process can hold
        raise InvalidArgument(f"{where} is not valid Unicode: {value!r}") from None
    return value


def as_list(value: Any, where: str) -> list[Any]:
    """`value` if it is a JSON array; null counts as empty, as Go writes it for a nil slice."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidArgument(f"{where} is {_kind(value)}, not an array")
    return value


def as_text_list(value: Any, where: str) -> tuple[str, ...]:
    """A JSON array of strings, null = empty. Raises: InvalidArgument naming `where`."""
    return tuple(as_text(item, f"{where}[{index}]") for index, item in enumerate(as_list(value, where)))


def as_text_map(value: Any, where: str) -> Mapping[str, str]:
    """A JSON object of strings, null = empty. Raises: InvalidArgument naming `where`."""
    if value is None:
        return {}
    return {
        as_text(key, f"a key of {where}"): as_text(item, f"{where}.{key}")
        for key, item in as_object(value, where).items()
    }


def _kind(value: Any) -> str:
    if value is None:
        return "missing"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "an array"}
    return names.get(type(value), "an object")
