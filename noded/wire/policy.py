"""containers-policy.json(5): which images a node accepts. Pure.

Only the transport `docker` matters here, since that is what registries are called there. A requirement of
a type that noded cannot check is kept as such and never satisfied.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from noded.errors import InvalidArgument
from noded.wire import reference as references
from noded.wire.descriptor import as_list, as_object, as_text
from noded.wire.reference import Reference

TRANSPORT: Final = "docker"
_FIELDS: Final = {
    "signedBy": {"type", "keyType", "keyPath", "keyPaths", "keyData", "signedIdentity"},
    "sigstoreSigned": {
        "type", "keyPath", "keyPaths", "keyData", "keyDatas", "fulcio", "pki", "rekorPublicKeyPath",
        "rekorPublicKeyPaths", "rekorPublicKeyData", "rekorPublicKeyDatas", "signedIdentity",
    },
}  # fmt: skip
_REMAP_PREFIX: Final = re.compile(r"[A-Za-z0-9.\-:\[\]]+(?:/[a-z0-9._\-/]+)?\Z")


@dataclass(frozen=True, slots=True)
class Identity:
    """Which name a signature must have: a rule of `signedIdentity` and its arguments."""

    rule: str = "matchRepoDigestOrExact"
    name: str = ""  # of exactReference, exactRepository; prefix of remapIdentity
    signed_prefix: str = ""


@dataclass(frozen=True, slots=True)
class AcceptAnything:
    """insecureAcceptAnything."""


@dataclass(frozen=True, slots=True)
class Reject:
    """reject."""


@dataclass(frozen=True, slots=True)
class Unsupported:
    """A requirement that noded cannot check; `reason` says what of it."""

    reason: str


@dataclass(frozen=True, slots=True)
class Signed:
    """signedBy (`kind` "gpg") or sigstoreSigned ("sigstore"): one signature by one of the keys.

    Keys are files, or their contents.
    """

    kind: str
    paths: tuple[str, ...]
    data: tuple[bytes, ...]
    identity: Identity


Requirement: TypeAlias = AcceptAnything | Reject | Unsupported | Signed


@dataclass(frozen=True, slots=True)
class Policy:
    """Requirements by scope; all of the most specific scope must be satisfied."""

    default: tuple[Requirement, ...]
    scopes: Mapping[str, tuple[Requirement, ...]]

    def requirements(self, reference: Reference) -> tuple[str, tuple[Requirement, ...]]:
        """The scope that decides on an image, and what it requires."""
        for scope in scopes(reference):
            if scope in self.scopes:
                return scope or "all registries", self.scopes[scope]
        return "default", self.default


def scopes(reference: Reference) -> Iterator[str]:
    """The scopes that an image is in, the most specific first."""
    yield reference.canonical
    yield from repository_scopes(reference)
    labels = reference.host.partition(":")[0].split(".")
    for index in range(1, len(labels)):
        yield "*." + ".".join(labels[index:])
    yield ""


def repository_scopes(reference: Reference) -> Iterator[str]:
    """host/a/b, host/a, host."""
    parts = reference.repository.split("/")
    for length in range(len(parts), 0, -1):
        yield "/".join(parts[:length])


def parse_policy(data: bytes) -> Policy:
    """Read a policy.

    Raises: InvalidArgument naming the wrong field.
    """
    try:
        fields = as_object(json.loads(data), "the policy")
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"is not JSON: {error}") from None
    if unknown := fields.keys() - {"default", "transports"}:
        raise InvalidArgument(f"unknown key {min(unknown)!r}")
    transports = as_object(fields.get("transports") or {}, "transports")
    docker = as_object(transports.get(TRANSPORT) or {}, f"transports.{TRANSPORT}")
    return Policy(
        _requirements(fields.get("default"), "default"),
        {scope: _requirements(value, f"transports.docker[{scope!r}]") for scope, value in docker.items()},
    )


def _requirements(value: Any, where: str) -> tuple[Requirement, ...]:
    items = as_list(value, where)
    if not items:
        raise InvalidArgument(f"{where} is missing or empty: write at least one requirement")
    return tuple(
        _requirement(as_object(item, f"{where}[{n}]"), f"{where}[{n}]") for n, item in enumerate(items)
    )


def _requirement(fields: Mapping[str, Any], where: str) -> Requirement:
    kind = as_text(fields.get("type") or "", f"{where}.type")
    if kind == "insecureAcceptAnything":
        return AcceptAnything()
    if kind == "reject":
        return Reject()
    if kind not in _FIELDS:
        return Unsupported(f"requirements of type {kind!r}")
    if unknown := fields.keys() - _FIELDS[kind]:
        return Unsupported(f"key {min(unknown)!r} of {kind}")
    identity = _identity(fields.get("signedIdentity"), f"{where}.signedIdentity")
    if isinstance(identity, Unsupported):
        return identity
    if kind == "signedBy":
        if (key_type := fields.get("keyType")) != "GPGKeys":
            return Unsupported(f"keyType {key_type!r} of signedBy")
        return Signed("gpg", *_keys(fields, where), identity)
    for name in ("fulcio", "pki", *(key for key in fields if key.startswith("rekor"))):
        if name in fields:
            return Unsupported(f"{name} of sigstoreSigned, only keys are checked")
    return Signed("sigstore", *_keys(fields, where), identity)


def _keys(fields: Mapping[str, Any], where: str) -> tuple[tuple[str, ...], tuple[bytes, ...]]:
    given = [name for name in ("keyPath", "keyPaths", "keyData", "keyDatas") if fields.get(name)]
    if len(given) != 1:
        raise InvalidArgument(f"{where} must have exactly one of keyPath, keyPaths and keyData")
    (name,) = given
    values = as_list(fields[name], name) if name.endswith("s") else [fields[name]]
    texts = tuple(as_text(value, f"{where}.{name}") for value in values)
    if name.startswith("keyPath"):
        if not all(text.startswith("/") for text in texts):
            raise InvalidArgument(f"{where}.{name}: {texts[0]!r} is not an absolute path")
        return texts, ()
    try:
        return (), tuple(base64.b64decode(text, validate=True) for text in texts)
    except binascii.Error:
        raise InvalidArgument(f"{where}.{name} is not base64") from None


def _identity(value: Any, where: str) -> Identity | Unsupported:
    if value is None:
        return Identity()
    fields = as_object(value, where)
    rule = as_text(fields.get("type") or "", f"{where}.type")
    match rule:
        case "matchExact" | "matchRepoDigestOrExact" | "matchRepository":
            return Identity(rule)
        case "exactReference":
            return Identity(rule, str(references.parse(as_text(fields.get("dockerReference"), where))))
        case "exactRepository":
            name = references.parse(as_text(fields.get("dockerRepository"), where))
            return Identity(rule, name.repository)
        case "remapIdentity":
            prefixes = [as_text(fields.get(key), f"{where}.{key}") for key in ("prefix", "signedPrefix")]
            for prefix in prefixes:
                if not _REMAP_PREFIX.match(prefix):
                    raise InvalidArgument(f"{where}: {prefix!r} is not host[:port][/path]")
            return Identity(rule, *prefixes)
        case _:
            return Unsupported(f"signedIdentity of type {rule!r}")


def allows(identity: Identity, reference: Reference, signed_name: str) -> bool:
    """Whether a signature that names `signed_name` is one for an image that is known as `reference`."""
    try:
        signed = _strict(signed_name)
    except InvalidArgument:
        return False
    match identity.rule:
        case "matchExact":
            return _written(reference) == _written(signed)
        case "matchRepoDigestOrExact":
            return _repository_or_exact(reference, signed)
        case "matchRepository":
            return reference.repository == signed.repository
        case "exactReference":
            return _written(references.parse(identity.name)) == _written(signed)
        case "exactRepository":
            return signed.repository == identity.name
        case "remapIdentity":
            name, prefix = str(reference), identity.name
            if name == prefix or name.startswith((f"{prefix}/", f"{prefix}:", f"{prefix}@")):
                try:
                    reference = references.parse(identity.signed_prefix + name[len(prefix) :])
                except InvalidArgument:
                    return False
            return _repository_or_exact(reference, signed)
        case _:
            return False


def _repository_or_exact(reference: Reference, signed: Reference) -> bool:
    if reference.digest:
        return reference.repository == signed.repository
    return _written(reference) == _written(signed)


def _strict(text: str) -> Reference:
    """A signed name. One without tag and digest names a repository, and is no exact reference."""
    parsed = references.parse(text)
    named = text.rpartition("/")[2]
    return parsed if ":" in named or "@" in named else Reference(parsed.host, parsed.path)


def _written(reference: Reference) -> Sequence[str]:
    return reference.host, reference.path, reference.tag, reference.digest
