"""containers-registries.d(5): where the signatures of an image are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from noded.errors import InvalidArgument
from noded.wire import yaml_subset
from noded.wire.descriptor import as_object
from noded.wire.policy import repository_scopes
from noded.wire.reference import Reference

DEFAULT_LOOKASIDE: Final = "file:///var/lib/containers/sigstore"
MAX_FILE_BYTES: Final = 1 << 20
# `sigstore` is the former name of `lookaside`; the *-staging keys are for writers.
_KEYS: Final = frozenset(
    {"lookaside", "sigstore", "lookaside-staging", "sigstore-staging", "use-sigstore-attachments"}
)


@dataclass(frozen=True, slots=True)
class Place:
    """One entry; None = not said, which leaves it to a wider scope."""

    lookaside: str | None = None
    attachments: bool | None = None


@dataclass(frozen=True, slots=True)
class SignaturePlaces:
    """All files merged."""

    default: Place = Place()
    scopes: Mapping[str, Place] = field(default_factory=dict)

    def lookaside(self, reference: Reference) -> str:
        """URL below which the signatures of a repository are."""
        for place in self._places(reference):
            if place.lookaside is not None:
                return place.lookaside
        return DEFAULT_LOOKASIDE

    def attachments(self, reference: Reference) -> bool:
        """Whether signatures are beside the image in its registry, as cosign stores them."""
        for place in self._places(reference):
            if place.attachments is not None:
                return place.attachments
        return False

    def _places(self, reference: Reference) -> list[Place]:
        names = (reference.canonical, *repository_scopes(reference))
        return [*(self.scopes[name] for name in names if name in self.scopes), self.default]


def load(directory: Path) -> SignaturePlaces:
    """Read all `*.yaml` files. Blocks on the disk.

    Raises: InvalidArgument naming the file.
    """
    default: Place | None = None
    scopes: dict[str, Place] = {}
    try:
        names = sorted(directory.glob("*.yaml"))
        for name in names:
            with name.open("rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
            own_default, own_scopes = _parse(data, name)
            if own_default is not None and default is not None:
                raise InvalidArgument(f"{name}: default-docker stands in another file, too")
            default = own_default or default
            for scope, place in own_scopes.items():
                if scope in scopes:
                    raise InvalidArgument(f"{name}: {scope!r} stands in another file, too")
                scopes[scope] = place
    except OSError as error:
        raise InvalidArgument(f"{error.filename} cannot be read: {error.strerror}") from error
    return SignaturePlaces(default or Place(), scopes)


def _parse(data: bytes, name: Path) -> tuple[Place | None, Mapping[str, Place]]:
    try:
        if len(data) > MAX_FILE_BYTES:
            raise InvalidArgument(f"is larger than {MAX_FILE_BYTES} bytes")
        fields = as_object(yaml_subset.parse(data.decode()), "the document")
        if unknown := fields.keys() - {"default-docker", "docker"}:
            raise InvalidArgument(f"unknown key {min(unknown)!r}")
        default = fields.get("default-docker")
        scopes = as_object(fields.get("docker") or {}, "docker")
        return (
            None if default is None else _place(default, "default-docker"),
            {scope: _place(value, f"docker.{scope}") for scope, value in scopes.items()},
        )
    except (InvalidArgument, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{name}: {error}") from None


def _place(value: Any, where: str) -> Place:
    fields = as_object(value or {}, where)
    if unknown := fields.keys() - _KEYS:
        raise InvalidArgument(f"{where}: unknown key {min(unknown)!r}")
    url = fields.get("lookaside") or fields.get("sigstore")
    attachments = fields.get("use-sigstore-attachments")
    if url is not None and not (isinstance(url, str) and url.startswith(("https://", "http://", "file:///"))):
        raise InvalidArgument(f"{where}.lookaside: {url!r} is no http, https or file URL")
    if attachments is not None and not isinstance(attachments, bool):
        raise InvalidArgument(f"{where}.use-sigstore-attachments is not true or false")
    return Place(None if url is None else url.rstrip("/"), attachments)
