"""CNI network configurations: parse and check a file, derive what one plugin is given. Pure.

A file is a configuration list (`plugins`: [...]) or, before 1.0.0, a single plugin (`type`: ...),
which becomes a list of one. A bad file is never guessed at: the error says what is wrong with it.

Spec: 1.1.0 section 1 (format), section 4 "Deriving request configuration from plugin configuration".
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from noded.errors import FailedPrecondition
from noded.network.version import OLDEST, SUPPORTED

EXTENSIONS = (".conflist", ".conf", ".json")

# Spec 1.1.0 section 1, "name"; also keeps the name usable as a directory name.
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*", re.ASCII)

# The sandbox's `lo` is brought up by whoever makes the namespace, so this plugin is never run.
LOOPBACK = "loopback"


@dataclass(frozen=True, slots=True)
class Conflist:
    """One checked network configuration.

    Args:
        source: file name within the configuration directory.
        versions: declared CNI versions that noded speaks; never empty.
        inlined_only: plugins from the directory named like the network must not be added.
    """

    source: str
    name: str
    versions: tuple[str, ...]
    plugins: tuple[Mapping[str, Any], ...]
    raw: Mapping[str, Any]
    inlined_only: bool = False

    @property
    def plugin_types(self) -> tuple[str, ...]:
        """The programs that ADD runs, in order; the native loopback is left out."""
        return tuple(plugin["type"] for plugin in self.plugins if plugin["type"] != LOOPBACK)

    def document(self, version: str) -> dict[str, Any]:
        """The whole list as JSON, with the version to speak filled in: what an attachment stores."""
        return {**self.raw, "cniVersion": version, "name": self.name, "plugins": list(self.plugins)}


def parse_conflist(text: str, source: str, *, added: Sequence[Mapping[str, Any]] = ()) -> Conflist:
    """Parse a `.conflist`, `.conf` or `.json` file.

    Args:
        added: plugin configurations aggregated from the directory named like the network.

    Raises: FailedPrecondition naming the file, the key and what is wrong.
    """
    raw = _parse_object(text, source)
    if "plugins" in raw or "type" not in raw:
        inlined = _plugin_list(raw, source)
    else:
        inlined = (raw,)
        raw = {"cniVersion": raw.get("cniVersion", OLDEST), "name": raw.get("name"), "plugins": [raw]}
    inlined_only = _flag(raw, "loadOnlyInlinedPlugins", source)
    for key in ("disableCheck", "disableGC"):
        _flag(raw, key, source)
    name = raw.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        _refuse(
            source, f"name: {name!r} must begin with a letter or digit, then letters, digits, '_', '.' or '-'"
        )
    plugins = inlined if inlined_only else (*inlined, *added)
    return Conflist(
        source=source,
        name=name,
        versions=_versions(raw, source),
        plugins=plugins,
        raw=raw,
        inlined_only=inlined_only,
    )


def parse_plugin(text: str, source: str) -> Mapping[str, Any]:
    """Parse one plugin configuration of the directory named like the network.

    Raises: FailedPrecondition naming the file.
    """
    plugin = _parse_object(text, source)
    _check_plugin(plugin, source, "type")
    return plugin


def require_plugins(conflist: Conflist) -> None:
    """Refuse a list that can never attach a pod, after all its plugins have been gathered.

    Raises: FailedPrecondition naming the file.
    """
    if not conflist.plugins:
        _refuse(conflist.source, "plugins: the list is empty")
    if not conflist.plugin_types:
        _refuse(conflist.source, "it configures only the loopback interface, which needs no network")


def plugin_request(
    document: Mapping[str, Any],
    plugin: Mapping[str, Any],
    *,
    capability_args: Mapping[str, Any] | None = None,
    previous: Mapping[str, Any] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the JSON that a plugin of the list reads from its standard input.

    Args:
        document: a stored configuration list, see `Conflist.document`.
        plugin: one of its plugins.
        capability_args: values by capability; only those that the plugin declares are passed.
        previous: result that becomes `prevResult`.
        extra: keys that belong to the verb (`cni.dev/...`).
    """
    request = {key: value for key, value in plugin.items() if key not in ("prevResult", "runtimeConfig")}
    request["cniVersion"] = document["cniVersion"]
    request["name"] = document["name"]
    declared = declared_capabilities((plugin,))
    runtime_config = {key: value for key, value in (capability_args or {}).items() if key in declared}
    if runtime_config:
        request["runtimeConfig"] = runtime_config
    if previous is not None:
        request["prevResult"] = previous
    request.update(extra or {})
    return request


def declared_capabilities(plugins: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    """Names of the capabilities that any of these plugins switches on."""
    return frozenset(
        name
        for plugin in plugins
        if isinstance(plugin.get("capabilities"), Mapping)
        for name, enabled in plugin["capabilities"].items()
        if enabled is True
    )


def is_disabled(document: Mapping[str, Any], key: str) -> bool:
    """Whether `disableCheck` or `disableGC` is set; spec 0.4.0 wrote the value as a string."""
    return document.get(key) in (True, "true", "True", "TRUE")


def _parse_object(text: str, source: str) -> dict[str, Any]:
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        _refuse(source, f"not JSON at line {error.lineno}, column {error.colno}: {error.msg}")
    except (ValueError, RecursionError) as error:
        _refuse(source, f"not JSON: {error}")
    if not isinstance(value, dict):
        _refuse(source, "not a JSON object")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _plugin_list(raw: Mapping[str, Any], source: str) -> tuple[Mapping[str, Any], ...]:
    plugins = raw.get("plugins", [])
    if not isinstance(plugins, list):
        _refuse(source, "plugins: must be a list of objects")
    for index, plugin in enumerate(plugins):
        if not isinstance(plugin, dict):
            _refuse(source, f"plugins[{index}]: must be an object")
        _check_plugin(plugin, source, f"plugins[{index}].type")
    return tuple(plugins)


def _check_plugin(plugin: Mapping[str, Any], source: str, where: str) -> None:
    type_ = plugin.get("type")
    if not isinstance(type_, str) or not type_:
        _refuse(source, f"{where}: must name a plugin")
    if not is_plugin_type(type_):
        _refuse(source, f"{where}: {type_!r} must be a plain file name, without '/'")


def is_plugin_type(type_: str) -> bool:
    """Whether a plugin type is a plain file name: it is looked up in the plugin directories only."""
    return type_ not in ("", ".", "..") and "/" not in type_ and type_.isprintable()


def _versions(raw: Mapping[str, Any], source: str) -> tuple[str, ...]:
    single = raw.get("cniVersion", OLDEST) or OLDEST
    several = raw.get("cniVersions", [])
    if not isinstance(single, str):
        _refuse(source, "cniVersion: must be a string")
    if not isinstance(several, list) or not all(isinstance(item, str) for item in several):
        _refuse(source, "cniVersions: must be a list of strings")
    declared = {single, *several}
    spoken = tuple(version for version in SUPPORTED if version in declared)
    if not spoken:
        wanted = ", ".join(sorted(declared))
        _refuse(
            source, f"cniVersion: {wanted} is not among the versions noded speaks ({', '.join(SUPPORTED)})"
        )
    return spoken


def _flag(raw: Mapping[str, Any], key: str, source: str) -> bool:
    value = raw.get(key, False)
    if value not in (True, False, "true", "True", "TRUE", "false", "False", "FALSE"):
        _refuse(source, f"{key}: {value!r} must be true or false")
    return is_disabled(raw, key)


def _refuse(source: str, reason: str) -> NoReturn:
    raise FailedPrecondition(f"{source}: {reason}")
