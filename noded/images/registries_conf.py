"""containers-registries.conf(5), version 2: which registry an image name means and where its bytes are.

The main file is read first, then `FILE.d/*.conf` in name order. A later file replaces whole
`[[registry]]` tables of the same prefix, scalar settings, and single aliases. A missing file is an
empty configuration; a bad one is an error that names it, never half a configuration.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from noded.errors import InvalidArgument

MAX_FILE_BYTES: Final = 1 << 20  # a configuration larger than this is not one
_PREFIX: Final = re.compile(r"(?:\*\.)?[^\s*]+\Z")
_TOP_LEVEL: Final = frozenset(
    {
        "unqualified-search-registries",
        "credential-helpers",
        "short-name-mode",
        "registry",
        "aliases",
        "additional-layer-store-auth-helper",
    }
)
_REGISTRY: Final = frozenset({"prefix", "location", "insecure", "blocked", "mirror", "mirror-by-digest-only"})
_MIRROR: Final = frozenset({"location", "insecure", "pull-from-mirror"})


class ShortNameMode(StrEnum):
    """What a short name without an alias means when several search registries are configured."""

    ENFORCING = "enforcing"  # an error: the daemon has no person to ask
    PERMISSIVE = "permissive"  # try all in order
    DISABLED = "disabled"  # try all in order


class PullFrom(StrEnum):
    """Which pulls a mirror serves."""

    ALL = "all"
    DIGEST_ONLY = "digest-only"
    TAG_ONLY = "tag-only"


@dataclass(frozen=True, slots=True)
class Mirror:
    location: str
    insecure: bool = False
    pull_from: PullFrom = PullFrom.ALL


@dataclass(frozen=True, slots=True)
class Registry:
    """One `[[registry]]` table; `location` "" means that names are not rewritten."""

    prefix: str
    location: str = ""
    insecure: bool = False
    blocked: bool = False
    mirrors: tuple[Mirror, ...] = ()
    source: str = ""  # the file it comes from, for messages


@dataclass(frozen=True, slots=True)
class RegistriesConf:
    """The merged configuration."""

    search: tuple[str, ...] = ()
    short_name_mode: ShortNameMode = ShortNameMode.PERMISSIVE
    aliases: Mapping[str, str] = field(default_factory=dict)
    registries: tuple[Registry, ...] = ()
    credential_helpers: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()  # "FILE: key" of keys unknown here, which newer tools may understand

    def registry_for(self, name: str) -> Registry | None:
        """The table with the longest prefix that matches a full reference."""
        matching = [entry for entry in self.registries if match_length(name, entry.prefix) is not None]
        return max(matching, key=lambda entry: len(entry.prefix), default=None)


def load(path: Path) -> RegistriesConf:
    """Read `path` and its drop-ins. Blocks on the disk.

    Raises: InvalidArgument naming the file and the reason.
    """
    drop_ins = path.with_name(f"{path.name}.d")
    try:
        names = sorted(drop_ins.glob("*.conf"))
    except OSError as error:
        raise InvalidArgument(f"{drop_ins} cannot be read: {error.strerror}") from error
    merged = RegistriesConf()
    for name in (path, *names):
        try:
            with name.open("rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise InvalidArgument(f"{name} cannot be read: {error.strerror}") from error
        merged = merge(merged, data, str(name))
    return merged


def merge(base: RegistriesConf, data: bytes, source: str) -> RegistriesConf:
    """Apply one file's content on top of `base`. Pure.

    Raises: InvalidArgument naming `source` and the reason.
    """
    try:
        return _merge(base, data, source)
    except InvalidArgument as error:
        raise InvalidArgument(f"{source}: {error}") from None


def match_length(name: str, prefix: str) -> int | None:
    """How many characters of `name` the prefix covers, None when it does not match.

    A prefix ends where a component of the name ends: before `:`, `/`, `@` or the end.
    """
    if prefix.startswith("*."):
        host = re.split(r"[:/@]", name, maxsplit=1)[0]
        return len(host) if host.endswith(prefix[1:]) and len(host) > len(prefix) - 1 else None
    if name.startswith(prefix) and (len(name) == len(prefix) or name[len(prefix)] in ":/@"):
        return len(prefix)
    return None


def _merge(base: RegistriesConf, data: bytes, source: str) -> RegistriesConf:
    if len(data) > MAX_FILE_BYTES:
        raise InvalidArgument(f"is larger than {MAX_FILE_BYTES} bytes")
    try:
        table = tomllib.loads(data.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise InvalidArgument(f"is not TOML: {error}") from None
    if "registries" in table:
        raise InvalidArgument(
            "[registries.search|insecure|block] is the version 1 format: write unqualified-search-registries "
            "and [[registry]] tables instead, see containers-registries.conf(5)"
        )
    ignored = list(base.ignored)
    ignored += _unknown(table, _TOP_LEVEL, source)
    search, helpers, mode = base.search, base.credential_helpers, base.short_name_mode
    if "unqualified-search-registries" in table:
        search = _texts(table, "unqualified-search-registries")
        for host in search:
            _check_host(host)
    if "credential-helpers" in table:
        helpers = _texts(table, "credential-helpers")
    if named := _text(table, "short-name-mode"):
        try:
            mode = ShortNameMode(named)
        except ValueError:
            raise InvalidArgument(
                f"short-name-mode is {named!r}, not one of {', '.join(ShortNameMode)}"
            ) from None
    entries = {entry.prefix: entry for entry in base.registries}
    seen: dict[str, Registry] = {}
    for index, item in enumerate(_tables(table, "registry")):
        entry = _registry(item, f"registry[{index}]", source, ignored)
        if entry.prefix in seen and seen[entry.prefix] != entry:
            raise InvalidArgument(f"has two different [[registry]] tables for prefix {entry.prefix!r}")
        seen[entry.prefix] = entries[entry.prefix] = entry
    aliases = dict(base.aliases)
    for short, full in _aliases(table).items():
        aliases.pop(short, None)
        if full:
            aliases[short] = full
    return RegistriesConf(search, mode, aliases, tuple(entries.values()), helpers, tuple(ignored))


def _registry(table: Mapping[str, Any], where: str, source: str, ignored: list[str]) -> Registry:
    ignored += _unknown(table, _REGISTRY, f"{source}: {where}")
    location = _text(table, "location", where).rstrip("/")
    prefix = _text(table, "prefix", where).rstrip("/") or location
    if not prefix:
        raise InvalidArgument(f"{where} has neither prefix nor location")
    if not _PREFIX.match(prefix) or "://" in prefix:
        raise InvalidArgument(f"{where}.prefix {prefix!r} is not host[:port][/path] or *.domain")
    wildcard = prefix.startswith("*.")
    if wildcard and ("/" in prefix or ":" in prefix):
        raise InvalidArgument(
            f"{where}.prefix {prefix!r}: a wildcard stands for hosts only, without port or path"
        )
    if not location and not wildcard:
        raise InvalidArgument(f"{where} has prefix {prefix!r} but no location")
    if location:
        _check_location(location, where)
    by_digest_only = _flag(table, "mirror-by-digest-only", where)
    for index, item in enumerate(_tables(table, "mirror", where)):
        ignored += _unknown(item, _MIRROR, f"{source}: {where}.mirror[{index}]")
    mirrors = tuple(
        _mirror(item, f"{where}.mirror[{index}]", by_digest_only=by_digest_only)
        for index, item in enumerate(_tables(table, "mirror", where))
    )
    return Registry(
        prefix=prefix,
        location=location,
        insecure=_flag(table, "insecure", where),
        blocked=_flag(table, "blocked", where),
        mirrors=mirrors,
        source=source,
    )


def _mirror(table: Mapping[str, Any], where: str, *, by_digest_only: bool) -> Mirror:
    location = _text(table, "location", where).rstrip("/")
    if not location:
        raise InvalidArgument(f"{where} has no location")
    _check_location(location, where)
    named = _text(table, "pull-from-mirror", where)
    if named and by_digest_only:
        raise InvalidArgument(f"{where}.pull-from-mirror is not allowed beside mirror-by-digest-only = true")
    try:
        pull_from = PullFrom(named) if named else PullFrom.ALL
    except ValueError:
        raise InvalidArgument(
            f"{where}.pull-from-mirror is {named!r}, not one of {', '.join(PullFrom)}"
        ) from None
    if by_digest_only:
        pull_from = PullFrom.DIGEST_ONLY
    return Mirror(location, _flag(table, "insecure", where), pull_from)


def _aliases(table: Mapping[str, Any]) -> Mapping[str, str]:
    aliases = table.get("aliases", {})
    if not isinstance(aliases, dict):
        raise InvalidArgument("[aliases] is not a table")
    for short, full in aliases.items():
        if not isinstance(full, str):
            raise InvalidArgument(f"alias {short!r} is not a string")
        first, slash, _ = short.partition("/")
        if (slash and "." in first) or ":" in short or "@" in short or first == "localhost":
            raise InvalidArgument(f"alias {short!r} is not a short name: it must name no host, tag or digest")
        host, slash, path = full.partition("/")
        if full and not (slash and path and ("." in host or ":" in host or host == "localhost")):
            raise InvalidArgument(
                f"alias {short!r} means {full!r}, which does not begin with a registry host"
            )
        if "@" in path or ":" in path:
            raise InvalidArgument(f"alias {short!r} means {full!r}: leave the tag and digest out")
    return aliases


def _check_host(host: str) -> None:
    if not host or "/" in host or any(character.isspace() for character in host):
        raise InvalidArgument(f"unqualified-search-registries has {host!r}, which is no host[:port]")


def _check_location(location: str, where: str) -> None:
    if "://" in location:
        raise InvalidArgument(
            f"{where}.location {location!r} must not have a scheme: write host[:port][/path]"
        )
    if "*" in location or any(character.isspace() for character in location):
        raise InvalidArgument(f"{where}.location {location!r} is not host[:port][/path]")


def _unknown(table: Mapping[str, Any], known: frozenset[str], where: str) -> list[str]:
    # Shared with podman, skopeo and buildah, whose newer versions may know more: told, not refused.
    return [f"{where}: {key}" for key in table if key not in known]


def _text(table: Mapping[str, Any], key: str, where: str = "") -> str:
    value = table.get(key, "")
    if not isinstance(value, str):
        raise InvalidArgument(f"{f'{where}.{key}' if where else key} is not a string")
    return value.strip()


def _flag(table: Mapping[str, Any], key: str, where: str) -> bool:
    value = table.get(key, False)
    if not isinstance(value, bool):
        raise InvalidArgument(f"{where}.{key} is not true or false")
    return value


def _texts(table: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = table[key]
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InvalidArgument(f"{key} is not an array of strings")
    return tuple(value)


def _tables(table: Mapping[str, Any], key: str, where: str = "") -> Sequence[Mapping[str, Any]]:
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise InvalidArgument(f"{f'{where}.{key}' if where else key} must be written as [[{key}]] tables")
    return value
