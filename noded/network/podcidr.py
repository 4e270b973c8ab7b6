"""The node's pod CIDRs: checked, remembered across restarts, and rendered into a configuration file.

kubelet announces them once (UpdateRuntimeConfig) and does not repeat itself when noded restarts.
"""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path

from noded.errors import FailedPrecondition, InvalidArgument, NodedError, Unavailable
from noded.host.files import publish
from noded.network.conflist import parse_conflist, require_plugins

# The name under `conf_dir`; early in lexical order, behind 00- and 05- files of add-ons.
CONF_FILE = "10-noded.conflist"

_ROUTES = {4: "0.0.0.0/0", 6: "::/0"}
_LONGEST = 1000  # characters; a node has one or two CIDRs


def parse_pod_cidrs(text: str) -> tuple[str, ...]:
    """Return the CIDRs of kubelet's comma-separated list, in order, in canonical form.

    Raises: InvalidArgument naming the field and the item that is no CIDR.
    """
    if len(text) > _LONGEST:
        raise InvalidArgument(f"runtime_config.network_config.pod_cidr: longer than {_LONGEST} characters")
    cidrs: list[str] = []
    for item in (part.strip() for part in text.split(",")):
        if not item:
            continue
        try:
            if "/" not in item:
                raise ValueError(item)
            cidrs.append(str(ipaddress.ip_network(item, strict=False)))
        except ValueError:
            raise InvalidArgument(
                f"runtime_config.network_config.pod_cidr: {item!r} is not a CIDR like 10.244.1.0/24"
            ) from None
    return tuple(dict.fromkeys(cidrs))


def render_conflist(template: str, cidrs: tuple[str, ...]) -> str:
    """Return the configuration list that the template gives for these CIDRs.

    Raises: FailedPrecondition when the template or what it gives is wrong.
    """
    from noded.network.template import render  # few nodes have a template

    families = {ipaddress.ip_network(cidr).version for cidr in cidrs}
    routes = tuple(route for family, route in _ROUTES.items() if family in families)
    text = render(template, {"PodCIDR": cidrs[0], "PodCIDRRanges": cidrs, "Routes": routes})
    require_plugins(parse_conflist(text, "the rendered configuration"))
    return text


class PodCIDRs:
    """Keeps the CIDRs in `cache_dir` and the rendered file in `conf_dir`. Blocking."""

    def __init__(self, cache_dir: Path, conf_dir: Path, template: str) -> None:
        self._remembered = cache_dir / "pod-cidr.json"
        self._conf_file = conf_dir / CONF_FILE
        self._template = template

    def recall(self) -> tuple[str, ...]:
        """Return the CIDRs last remembered, () if none are or the file is no longer readable."""
        try:
            return parse_pod_cidrs(",".join(json.loads(self._remembered.read_text())))
        except (OSError, ValueError, TypeError, InvalidArgument):
            return ()

    def remember(self, cidrs: tuple[str, ...]) -> None:
        """Write the CIDRs so that they survive a restart.

        Raises: Unavailable, ResourceExhausted when they cannot be written.
        """
        _publish(self._remembered, json.dumps(cidrs))

    def publish(self, cidrs: tuple[str, ...]) -> bool:
        """Render the template into `conf_dir`; return whether the file changed.

        Raises:
            FailedPrecondition: the template is missing or wrong; names file and line.
            Unavailable, ResourceExhausted: the file cannot be written.
        """
        if not self._template or not cidrs:
            return False
        try:
            template = Path(self._template).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise FailedPrecondition(
                f"[network] conf_template {self._template} cannot be read: {error}"
            ) from None
        try:
            text = render_conflist(template, cidrs)
        except NodedError as error:
            raise FailedPrecondition(f"[network] conf_template {self._template}: {error}") from None
        try:
            if self._conf_file.read_text() == text:
                return False
        except (OSError, UnicodeDecodeError):
            pass  # absent or somebody else's: written anew
        _publish(self._conf_file, text)
        return True


def _publish(path: Path, text: str) -> None:
    # The hidden name that the file has until it is complete keeps it out of the configuration.
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(f"cannot create {path.parent}: {error.strerror}") from None
    publish(path, text.encode(), durable=True)
