"""containerd's registry host configuration: `CONFIG_PATH/HOST/hosts.toml`.

    server = "https://registry.example"             the registry itself, by default https://HOST

    [host."https://mirror.example/v2/cache"]        tried before it, in the order of the file
      capabilities = ["pull", "resolve"]            pull: by digest; resolve: tags, too
      ca = "mirror.crt"                             one or more, relative to the directory
      client = [["mirror.cert", "mirror.key"]]      or one file with both
      skip_verify = false
      override_path = true                          the path is whole, `/v2` is not added
      [host."https://mirror.example/v2/cache".header]
        x-team = "platform"                         sent with every request, one value or more

The keys of a host may stand at the top as well, for the server. A directory is looked for by the name
`HOST_PORT_` (where a colon cannot be in a file name), then `HOST:PORT`; `_default` is for all hosts
without one. Nothing is cached: each pull reads it anew.

Spec: containerd docs/hosts.md.
"""

from __future__ import annotations

import posixpath
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from noded.errors import InvalidArgument
from noded.images.endpoints import Endpoint, TLSFiles
from noded.wire.reference import DEFAULT_HOST, Reference

FILE: Final = "hosts.toml"
DEFAULT_DIRECTORY: Final = "_default"
MAX_FILE_BYTES: Final = 1 << 20
_CAPABILITIES: Final = frozenset({"pull", "resolve", "push"})
_KEYS: Final = frozenset(
    {"capabilities", "ca", "client", "skip_verify", "header", "override_path", "dial_timeout"}
)
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")  # RFC 9110 §5.6.2


@dataclass(frozen=True, slots=True)
class HostEntry:
    """One place to ask. `base` is the path before the repository; `scheme` is http or https."""

    scheme: str
    host: str
    base: str
    resolves: bool = True
    pulls: bool = True
    skip_verify: bool = False
    files: TLSFiles = TLSFiles()
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class HostsFile:
    """A parsed file; `server` is None where it names none."""

    mirrors: tuple[HostEntry, ...]
    server: HostEntry | None


def load(config_path: Path, host: str) -> tuple[HostsFile, bool] | None:
    """The configuration for `host[:port]`, and whether it is that of the host and not `_default`.

    None when there is neither. Blocks on the disk.

    Raises: InvalidArgument naming the file and what is wrong in it.
    """
    for name in (*_directory_names(host), DEFAULT_DIRECTORY):
        directory = config_path / name
        try:
            with (directory / FILE).open("rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise InvalidArgument(f"{directory / FILE} cannot be read: {error.strerror}") from error
        return parse(data, directory), name != DEFAULT_DIRECTORY
    return None


def endpoints(found: HostsFile, reference: Reference) -> tuple[Endpoint, ...]:
    """Where to pull `reference` from by this file, in the order to try. Pure."""
    server = found.server or HostEntry("https", reference.host, "/v2")
    places = [_endpoint(entry, reference, mirror=True) for entry in found.mirrors]
    places.append(_endpoint(server, reference, mirror=False))
    return tuple(place for place in places if place.resolves or place.pulls)


def parse(data: bytes, directory: Path) -> HostsFile:
    """Read a file's content; paths in it are relative to `directory`. Pure.

    Raises: InvalidArgument naming the file and what is wrong in it.
    """
    try:
        return _parse(data, directory)
    except InvalidArgument as error:
        raise InvalidArgument(f"{directory / FILE}: {error}") from None


def _directory_names(host: str) -> Sequence[str]:
    name, colon, port = host.rpartition(":")
    if colon and port.isdecimal():
        return f"{name}_{port}_", host
    return (host,)


def _parse(data: bytes, directory: Path) -> HostsFile:
    if len(data) > MAX_FILE_BYTES:
        raise InvalidArgument(f"is larger than {MAX_FILE_BYTES} bytes")
    try:
        table = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"is not TOML: {error}") from None
    hosts = table.pop("host", {})
    address = table.pop("server", "")
    if not isinstance(hosts, dict) or not isinstance(address, str):
        raise InvalidArgument('server must be a string, and hosts written as [host."URL"] tables')
    mirrors = []
    for url, settings in hosts.items():
        if not isinstance(settings, dict):
            raise InvalidArgument(f"host.{url!r} is not a table")
        mirrors.append(_entry(url, settings, f"host.{url!r}", directory))
    if not address and table.keys() & _KEYS:
        raise InvalidArgument(f"{', '.join(sorted(table))} are for the server: name it in `server`")
    server = _entry(address, table, "server", directory) if address else None
    return HostsFile(tuple(mirrors), server)


def _entry(url: str, settings: Mapping[str, Any], where: str, directory: Path) -> HostEntry:
    for key in settings:
        if key not in _KEYS:
            raise InvalidArgument(f"{where}: unknown key {key!r}")
    scheme, host, path = _address(url, where)
    if not _flag(settings, "override_path", where) and not path.endswith("/v2"):
        path += "/v2"
    capabilities = _texts(settings, "capabilities", where) or tuple(_CAPABILITIES)
    for capability in capabilities:
        if capability not in _CAPABILITIES:
            known = ", ".join(sorted(_CAPABILITIES))
            raise InvalidArgument(f"{where}.capabilities: {capability!r} is not one of {known}")
    return HostEntry(
        scheme=scheme,
        host=host,
        base=path,
        resolves="resolve" in capabilities,
        pulls="pull" in capabilities,
        skip_verify=_flag(settings, "skip_verify", where),
        files=TLSFiles(
            tuple(directory / name for name in _texts(settings, "ca", where)),
            _client(settings.get("client", []), where, directory),
        ),
        headers=_headers(settings.get("header", {}), where),
    )


def _address(url: str, where: str) -> tuple[str, str, str]:
    """(scheme, host[:port], clean path) of a URL; without a scheme, localhost has no TLS."""
    if "://" not in url:
        name = url.partition("/")[0].rpartition(":")[0] or url.partition("/")[0]
        url = f"{'http' if name in ('localhost', '127.0.0.1', '[::1]') else 'https'}://{url}"
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 # raises for a bad one
    except ValueError as error:
        raise InvalidArgument(f"{where}: {url!r} is no URL: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise InvalidArgument(f"{where}: {url!r} is not http(s)://HOST[:PORT][/PATH]")
    if parts.username is not None:
        raise InvalidArgument(f"{where}: a login does not belong into the URL, use auth.json")
    path = posixpath.normpath(parts.path) if parts.path.strip("/") else ""
    return parts.scheme, parts.netloc, path


def _client(value: Any, where: str, directory: Path) -> tuple[tuple[Path, Path], ...]:
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list):
        raise InvalidArgument(f"{where}.client is not a file name or an array")
    pairs = []
    for item in items:
        pair = [item, item] if isinstance(item, str) else item
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(name, str) for name in pair):
            raise InvalidArgument(f"{where}.client: {item!r} is not a file name or [certificate, key]")
        pairs.append((directory / pair[0], directory / (pair[1] or pair[0])))
    return tuple(pairs)


def _headers(value: Any, where: str) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict):
        raise InvalidArgument(f"{where}.header is not a table")
    headers = []
    for name, texts in value.items():
        values = [texts] if isinstance(texts, str) else texts
        if not _HEADER_NAME.match(name) or not isinstance(values, list):
            raise InvalidArgument(f"{where}.header: {name!r} is not a header name with a value or values")
        if not all(isinstance(text, str) and text.isprintable() for text in values):
            raise InvalidArgument(f"{where}.header.{name} is not a string of one line")
        headers.append((name, ", ".join(values)))
    return tuple(headers)


def _endpoint(entry: HostEntry, reference: Reference, *, mirror: bool) -> Endpoint:
    same = entry.host == reference.host
    hub = reference.host == DEFAULT_HOST and entry.host == "registry-1.docker.io"
    return Endpoint(
        host=DEFAULT_HOST if hub else entry.host,
        path=reference.path,
        insecure=entry.skip_verify,
        mirror=mirror,
        scheme=entry.scheme,
        base=entry.base,
        namespace="" if same or hub else reference.host,
        headers=entry.headers,
        files=entry.files,
        resolves=entry.resolves,
        pulls=entry.pulls,
    )


def _flag(settings: Mapping[str, Any], key: str, where: str) -> bool:
    value = settings.get(key, False)
    if not isinstance(value, bool):
        raise InvalidArgument(f"{where}.{key} is not true or false")
    return value


def _texts(settings: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    value = settings.get(key, [])
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
        raise InvalidArgument(f"{where}.{key} is not a string or an array of strings")
    return tuple(values)
