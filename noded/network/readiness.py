"""Finds out whether pods can be attached now: the file, its plugins, their versions, their STATUS."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from noded.config import NetworkConfig
from noded.errors import DeadlineExceeded, NodedError
from noded.network import answer as answers
from noded.network import chain
from noded.network.confdir import choose, read_confdir
from noded.network.conflist import Conflist
from noded.network.plugin import Budget, Invocation, Plugins
from noded.network.version import negotiate

# For VERSION and for STATUS of a whole list; both are answered without touching any pod.
_PROBE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found out.

    Args:
        conflist: the chosen network, None if there is none.
        document: it as an attachment stores it, None until a version has been agreed on.
        problem: why pods cannot be attached, "" if they can.
        remark: what is worth knowing although they can.
        late: a plugin did not answer in time, so asking again soon is a waste.
    """

    conflist: Conflist | None = None
    document: Mapping[str, Any] | None = None
    problem: str = ""
    remark: str = ""
    late: bool = False


class Readiness:
    """Looks at the configuration directory and asks the plugins. Remembers each program's versions."""

    def __init__(self, config: NetworkConfig, plugins: Plugins) -> None:
        self._config = config
        self._plugins = plugins
        self._versions: dict[str, tuple[tuple[object, ...], frozenset[str] | None]] = {}
        self._folders: tuple[Path, ...] = ()

    def directories(self) -> tuple[Path, ...]:
        """Every directory whose content decides, as far as known since the last look."""
        return (self._config.conf_dir, *self._folders, *self._config.bin_dirs)

    async def look(self, previous: Survey) -> Survey:
        """Return the present state. Never raises for what is wrong on the node.

        Cancellation: safe.
        """
        listing = await trio.to_thread.run_sync(read_confdir, self._config.conf_dir, abandon_on_cancel=True)
        self._folders = tuple(
            listing.directory / network.name for network in listing.networks if not network.inlined_only
        )
        choice = choose(listing, self._config.default_network, previous.conflist)
        conflist = choice.conflist
        if conflist is None:
            return Survey(problem=choice.message)
        where = f"network {conflist.name!r} ({conflist.source})"
        spoken: dict[str, frozenset[str] | None] = {}
        try:
            budget = Budget(_PROBE_SECONDS)
            for type_ in dict.fromkeys(conflist.plugin_types):
                spoken[type_] = await self._spoken(type_, budget)
        except NodedError as error:
            return Survey(conflist, problem=f"{where}: {error}", remark=choice.message)
        known = {type_: versions for type_, versions in spoken.items() if versions is not None}
        version = negotiate(conflist.versions, known.values())
        if version is None:
            return Survey(
                conflist, problem=f"{where}: {_disagreement(conflist, known)}", remark=choice.message
            )
        document = conflist.document(version)
        try:
            await chain.status(self._plugins, document, Budget(_PROBE_SECONDS))
        except NodedError as error:
            late = isinstance(error, DeadlineExceeded)
            return Survey(conflist, document, problem=f"{where}: {error}", remark=choice.message, late=late)
        return Survey(conflist, document, remark=choice.message)

    async def _spoken(self, type_: str, budget: Budget) -> frozenset[str] | None:
        """Return the versions of a plugin program, None when it does not tell.

        Raises: Unavailable when it is missing.
        """
        path = self._plugins.find(type_)
        identity = _identity(path)
        known = self._versions.get(type_)
        if known is not None and known[0] == identity:
            return known[1]
        try:
            answer = await self._plugins.call(
                type_, Invocation("VERSION", network=""), {"cniVersion": "1.0.0"}, budget
            )
            versions = answers.spoken_versions(answer)
        except DeadlineExceeded:
            # VERSION is only a courtesy check; ADD will tell.
            versions = None
        self._versions[type_] = (identity, versions)
        return versions


def _identity(path: Path) -> tuple[object, ...]:
    try:
        stat = os.stat(path)
    except OSError:
        return (str(path),)
    return (str(path), stat.st_ino, stat.st_size, stat.st_mtime_ns)


def _disagreement(conflist: Conflist, known: Mapping[str, frozenset[str]]) -> str:
    wanted = ", ".join(conflist.versions)
    behind = [
        f"{type_!r} speaks {', '.join(sorted(versions)) or 'none'}"
        for type_, versions in known.items()
        if not versions.intersection(conflist.versions)
    ]
    reason = f"but plugin {'; '.join(behind)}" if behind else "but its plugins have none of them in common"
    return f"it is written for CNI {wanted}, {reason}: change cniVersion or install other plugins"
