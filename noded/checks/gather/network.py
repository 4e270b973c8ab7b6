"""The pod network as the daemon would choose it, without running any plugin."""

from __future__ import annotations

from noded.checks import facts
from noded.config import NetworkConfig
from noded.errors import NodedError
from noded.network.confdir import choose, read_confdir
from noded.network.conflist import declared_capabilities
from noded.network.plugin import Plugins


def look(config: NetworkConfig) -> facts.Network:
    """Facts of the directory with configurations and of those with plugins."""
    choice = choose(read_confdir(config.conf_dir), config.default_network, None)
    found = facts.Network(
        conf_dir=str(config.conf_dir),
        bin_dirs=tuple(map(str, config.bin_dirs)),
        message=choice.message,
    )
    if choice.conflist is None:
        return found
    programs = Plugins(config.bin_dirs, "check")
    wanted = [*choice.conflist.plugin_types, *_address_managers(choice.conflist.plugins)]
    missing = []
    for type_ in dict.fromkeys(wanted):
        try:
            programs.find(type_)
        except NodedError:
            missing.append(type_)
    return facts.Network(
        conf_dir=found.conf_dir,
        bin_dirs=found.bin_dirs,
        message=found.message,
        chosen=choice.conflist.name,
        source=choice.conflist.source,
        types=choice.conflist.plugin_types,
        missing=tuple(missing),
        capabilities=declared_capabilities(choice.conflist.plugins),
    )


def _address_managers(plugins: object) -> list[str]:
    """Programs that plugins run themselves, for addresses. Spec: CNI 1.1.0 section 4, delegation."""
    assert isinstance(plugins, tuple)
    found = [plugin["ipam"] for plugin in plugins if isinstance(plugin.get("ipam"), dict)]
    return [each["type"] for each in found if isinstance(each.get("type"), str) and each["type"]]
