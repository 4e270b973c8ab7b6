"""Image references: the grammar of distribution's `reference` package, normalised. Pure.

    reference := name [":" tag] ["@" digest]          name := [host "/"] path
    host      := (domain | IPv4 | "[" IPv6 "]") [":" port]
    path      := component ("/" component)*            component := alnum (separator alnum)*

A first component is a host when it has a dot, a colon or an upper case letter, or is `localhost`;
everything else lives on docker.io, where a single component means `library/component`.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, replace
from typing import Final

from noded.errors import InvalidArgument
from noded.wire import digest as digests

DEFAULT_HOST: Final = "docker.io"
DEFAULT_TAG: Final = "latest"
MAX_NAME: Final = 255  # characters of host/path, the limit of distribution/reference
MAX_TEXT: Final = 1024  # characters accepted at all: name, tag (128) and a sha512 digest fit well

_COMPONENT: Final = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*\Z")
_LABEL: Final = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?\Z")
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z")
_PORT: Final = re.compile(r"[0-9]{1,5}\Z")
_HOST: Final = re.compile(r"(?P<name>\[[^\]]*\]|[^:]*)(?::(?P<port>.*))?\Z", re.DOTALL)
_IMAGE_ID: Final = re.compile(r"(?:sha256:)?[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """A full reference. At least one of `tag` and `digest` is set.

    With both, the digest decides what is fetched and the tag is a remark.
    """

    host: str
    path: str
    tag: str = ""
    digest: str = ""

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.host}/{self.path}{tag}{digest}"

    @property
    def repository(self) -> str:
        """`host/path`."""
        return f"{self.host}/{self.path}"

    @property
    def canonical(self) -> str:
        """The name under which an image is kept: `host/path@digest`, without one `host/path:tag`."""
        return f"{self.repository}@{self.digest}" if self.digest else f"{self.repository}:{self.tag}"

    @property
    def target(self) -> str:
        """What the manifest is asked for by: the digest if there is one, else the tag."""
        return self.digest or self.tag

    def at(self, digest: str) -> Reference:
        """The same repository by digest alone."""
        return replace(self, tag="", digest=digests.parse(digest))


def is_image_id(text: str) -> bool:
    """Whether `text` is a full image ID, with or without `sha256:`, and so no reference."""
    return bool(_IMAGE_ID.match(text))


def is_short(text: str) -> bool:
    """Whether `text` names no host, so that aliases and search registries apply to it."""
    first, slash, _ = text.partition("/")
    return not (slash and _looks_like_host(first))


def parse(text: str) -> Reference:
    """Parse and normalise an image reference.

    Raises: InvalidArgument naming the part that is wrong.
    """
    if not text:
        raise InvalidArgument("image reference is empty")
    if len(text) > MAX_TEXT:
        raise InvalidArgument(f"image reference has {len(text)} characters, more than {MAX_TEXT}")
    if is_image_id(text):
        raise InvalidArgument(
            f"image reference {text!r} is an image ID: name a repository such as host/path:tag"
        )
    rest, at, digest = text.partition("@")
    if at:
        try:
            digests.parse(digest)
        except InvalidArgument as error:
            raise InvalidArgument(f"image reference {text!r}: {error}") from None
    host, path = _split_host(rest)
    path, tag = _split_tag(path, text)
    if host == DEFAULT_HOST and "/" not in path:
        path = f"library/{path}"
    _check_host(host, text)
    _check_path(path, text)
    if len(host) + 1 + len(path) > MAX_NAME:
        raise InvalidArgument(f"image reference {text!r}: its name is longer than {MAX_NAME} characters")
    if not tag and not digest:
        tag = DEFAULT_TAG
    return Reference(host, path, tag, digest)


def _looks_like_host(component: str) -> bool:
    return "." in component or ":" in component or component == "localhost" or component != component.lower()


def _split_host(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    if not slash or not _looks_like_host(first):
        return DEFAULT_HOST, name
    if first.lower() == "index.docker.io":  # the Hub's historical name
        return DEFAULT_HOST, rest
    return first, rest


def _split_tag(path: str, text: str) -> tuple[str, str]:
    path, colon, tag = path.partition(":")
    if colon and not _TAG.match(tag):
        raise InvalidArgument(
            f"image reference {text!r}: tag {tag!r} must be 1 to 128 of A-Z a-z 0-9 _ . - "
            "and start with a letter, digit or _"
        )
    return path, tag


def _check_path(path: str, text: str) -> None:
    for component in path.split("/"):
        if _COMPONENT.match(component):
            continue
        if not component:
            raise InvalidArgument(f"image reference {text!r}: its repository path has an empty component")
        if component != component.lower() and _COMPONENT.match(component.lower()):
            raise InvalidArgument(f"image reference {text!r}: repository {component!r} must be lower case")
        raise InvalidArgument(
            f"image reference {text!r}: repository component {component!r} must be a-z and 0-9, "
            "joined by . _ __ or dashes"
        )


def _check_host(host: str, text: str) -> None:
    match = _HOST.match(host)
    name, port = (match["name"], match["port"]) if match else (host, None)
    if port is not None and not (_PORT.match(port) and 0 < int(port) < 65536):
        raise InvalidArgument(f"image reference {text!r}: port {port!r} of the registry is not 1 to 65535")
    if name.startswith("["):
        try:
            ipaddress.IPv6Address(name[1:-1].partition("%")[0])
        except ValueError:
            raise InvalidArgument(f"image reference {text!r}: {name!r} is not an IPv6 address") from None
        if "%" in name:
            raise InvalidArgument(f"image reference {text!r}: an IPv6 zone in {name!r} is not supported")
        return
    if not all(_LABEL.match(label) for label in name.split(".")):
        raise InvalidArgument(f"image reference {text!r}: {name!r} is not a registry host name")
