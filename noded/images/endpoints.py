"""From an image name to the places that may hold it, in the order to try them. Pure but for `tls_files`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from noded.errors import InvalidArgument, PermissionDenied
from noded.images.registries_conf import PullFrom, RegistriesConf, Registry, ShortNameMode, match_length
from noded.wire import reference as references
from noded.wire.reference import DEFAULT_HOST, Reference

CERTS_DIRS: Final = (Path("/etc/containers/certs.d"), Path("/etc/docker/certs.d"))  # first hit wins
_HUB_API: Final = "registry-1.docker.io"  # docker.io is a name only; its registry API is here


@dataclass(frozen=True, slots=True)
class TLSFiles:
    """PEM files for one host: extra CAs, and client certificates with their keys."""

    authorities: tuple[Path, ...] = ()
    client: tuple[tuple[Path, Path], ...] = ()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One place to ask: a registry host and the repository's path there.

    Args:
        host: host[:port] as configured, the key of credentials and certificates.
        insecure: allows an unverified certificate and, without `scheme`, where there is no TLS at all,
            plain HTTP.
        scheme: http or https, "" = https.
        base: the path before the repository.
        namespace: the registry that a mirror is asked for (query parameter `ns`), "" = not said.
        headers: of every request to this host. They may be secret.
        files: for TLS, before those of the certificate directories.
        resolves, pulls: whether it is asked for tags, and for content by digest.
    """

    host: str
    path: str
    insecure: bool = False
    mirror: bool = False
    scheme: str = ""
    base: str = "/v2"
    namespace: str = ""
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    files: TLSFiles = TLSFiles()
    resolves: bool = True
    pulls: bool = True

    @property
    def api_host(self) -> str:
        """host[:port] to connect to."""
        return _HUB_API if self.host == DEFAULT_HOST else self.host

    @property
    def name(self) -> str:
        """For messages."""
        return f"mirror {self.host}/{self.path}" if self.mirror else f"registry {self.host}"


def candidates(conf: RegistriesConf, text: str) -> tuple[Reference, ...]:
    """What `text` may mean, in the order to try.

    A name with a host means itself. A short name means its alias; else itself in each search
    registry; else, with none configured, docker.io.

    Raises: InvalidArgument for a bad reference, and in enforcing mode for one with several meanings.
    """
    found = meanings(conf, text)
    if len(found) > 1 and conf.short_name_mode is ShortNameMode.ENFORCING:
        hosts = ", ".join(conf.search)
        raise InvalidArgument(
            f"image reference {text!r} is ambiguous: write its registry ({hosts}) in front, "
            "or set an alias for it in registries.conf"
        )
    return found


def meanings(conf: RegistriesConf, text: str) -> tuple[Reference, ...]:
    """What `text` may mean of the images that are here, in the order to look.

    As `candidates`, but a name of several meanings is looked up in every mode: which of them was meant
    was settled when one was pulled or loaded.

    Raises: InvalidArgument for a bad reference.
    """
    parsed = references.parse(text)
    if not references.is_short(text):
        return (parsed,)
    short = text.partition("@")[0].partition(":")[0]
    rest = text[len(short) :]
    if full := conf.aliases.get(short):
        return (references.parse(full + rest),)
    return tuple(references.parse(f"{host}/{short}{rest}") for host in conf.search) or (parsed,)


def resolve(conf: RegistriesConf, reference: Reference) -> tuple[Endpoint, ...]:
    """Where to pull `reference` from: usable mirrors first, then the location itself.

    Raises: PermissionDenied when its registry is blocked; InvalidArgument when a rewrite gives no
        valid name.
    """
    name = str(reference)
    entry = conf.registry_for(name)
    if entry is None:
        return (Endpoint(reference.host, reference.path),)
    if entry.blocked:
        raise PermissionDenied(f"{name} must not be pulled: {entry.prefix} is blocked in {entry.source}")
    endpoints = [
        _endpoint(entry, reference, mirror.location, insecure=mirror.insecure, mirror=True)
        for mirror in entry.mirrors
        if _serves(mirror.pull_from, reference)
    ]
    endpoints.append(_endpoint(entry, reference, entry.location, insecure=entry.insecure, mirror=False))
    return tuple(endpoints)


def tls_files(host: str, directories: Sequence[Path] = CERTS_DIRS) -> TLSFiles:
    """The certificate files kept for `host[:port]` as containers-certs.d(5) lays them out.

    `*.crt` are CAs; `NAME.cert` with `NAME.key` is a client certificate. Blocks on the disk.

    Raises: InvalidArgument when a key or certificate lacks its partner.
    """
    for directory in directories:
        place = directory / host
        if not place.is_dir():
            continue
        names = sorted(place.iterdir())
        client = []
        for certificate in (name for name in names if name.suffix == ".cert"):
            key = certificate.with_suffix(".key")
            if key not in names:
                raise InvalidArgument(f"{certificate} has no key: add {key}")
            client.append((certificate, key))
        return TLSFiles(tuple(name for name in names if name.suffix == ".crt"), tuple(client))
    return TLSFiles()


def _serves(pull_from: PullFrom, reference: Reference) -> bool:
    if pull_from is PullFrom.ALL:
        return True
    return (pull_from is PullFrom.DIGEST_ONLY) == bool(reference.digest)


def _endpoint(
    entry: Registry, reference: Reference, location: str, *, insecure: bool, mirror: bool
) -> Endpoint:
    if not location:  # a wildcard prefix without a rewrite
        return Endpoint(reference.host, reference.path, insecure, mirror)
    name = str(reference)
    covered = match_length(name, entry.prefix)
    rewritten = f"{location}{name[covered:]}"
    try:
        if references.is_short(rewritten):
            raise InvalidArgument(f"location {location!r} does not begin with a registry host")
        moved = references.parse(rewritten)
    except InvalidArgument as error:
        raise InvalidArgument(
            f"{entry.source}: {entry.prefix} is rewritten to {rewritten!r}: {error}"
        ) from None
    return Endpoint(moved.host, moved.path, insecure, mirror)
