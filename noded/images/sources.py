"""Where to get an image from, and as whom, by the node's configuration, which is read at each pull."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import structlog
import trio

from noded.config import ImagesConfig
from noded.images import hosts_toml, registries_conf
from noded.images.auth import Credentials, RawAuthFile
from noded.images.endpoints import Endpoint, meanings, resolve
from noded.images.namespace_logins import NamespaceLogins
from noded.images.refusals import Source
from noded.images.registries_conf import RegistriesConf
from noded.model.image import Credential
from noded.wire.reference import Reference

log = structlog.get_logger(__name__)


class Sources:
    """Registries, mirrors and logins."""

    def __init__(self, config: ImagesConfig, credentials: Credentials) -> None:
        self._config, self._credentials = config, credentials
        self.logins = NamespaceLogins(config.auth_dir)
        self._conf = RegistriesConf()

    async def reload(self) -> RegistriesConf:
        """Read registries.conf and its drop-ins again; each pull does it.

        Raises: InvalidArgument naming the file; what was read before stays in `names`.
        """
        conf = await trio.to_thread.run_sync(registries_conf.load, self._config.registries_conf)
        if conf != self._conf:
            for key in conf.ignored:
                log.warning("registries.conf has a key noded does not know", key=key)
            self._conf = conf
        return conf

    def names(self, text: str) -> tuple[Reference, ...]:
        """What the name of a local image may mean by the configuration read last; see `meanings`."""
        return meanings(self._conf, text)

    async def find(
        self,
        name: Reference,
        conf: RegistriesConf,
        credential: Credential | None,
        namespace: str,
        handed_over: RawAuthFile | None = None,
    ) -> tuple[Source, ...]:
        """The sources of an image, best first.

        Args:
            credential: from the client, for the registry of that name only, not for mirrors of it.
            namespace: of the pod, "" if none.
            handed_over: logins for this pull, asked before those of the namespace; see `NamespaceLogins`.

        Raises: InvalidArgument, FailedPrecondition naming what is wrong with a file, or blocked.
        """
        found = []
        lasting: Sequence[Path | RawAuthFile] = self.logins.files(namespace)
        own = lasting if handed_over is None else (handed_over, *lasting)
        for endpoint in await trio.to_thread.run_sync(_endpoints, conf, self._config.config_path, name):
            login = credential if not endpoint.mirror else None
            if login is None:
                login = await self._credentials.find(
                    endpoint.host, endpoint.path, conf.credential_helpers, own
                )
            found.append(Source(endpoint, login, str(name)))
        return tuple(found)


def _endpoints(conf: RegistriesConf, config_path: Path | None, name: Reference) -> tuple[Endpoint, ...]:
    """Where to pull from: hosts.toml of the host, else its table in registries.conf, else _default."""
    by_registries = resolve(conf, name)  # also for its errors: blocked is blocked
    found = hosts_toml.load(config_path, name.host) if config_path is not None else None
    if found is None:
        return by_registries
    hosts, own = found
    return hosts_toml.endpoints(hosts, name) if own or conf.registry_for(str(name)) is None else by_registries
