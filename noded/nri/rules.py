"""What the administrator does not let plugins do. Pure."""

from __future__ import annotations

from collections.abc import Collection

from noded.config import NriConfig
from noded.errors import FailedPrecondition
from noded.nri.merge import Creation


def check_rules(rules: NriConfig, creation: Creation, plugins: Collection[str]) -> None:
    """Check what plugins made of a container against the configuration.

    Args:
        plugins: names, without their indices, of the plugins that were asked.

    Raises: FailedPrecondition naming the key of the configuration that forbids it.
    """
    for name in rules.required_plugins:
        if name not in plugins:
            raise FailedPrecondition(
                f"NRI plugin {name!r} is not connected, and [nri] required_plugins has it: start it"
            )
    linux, hooks = creation.adjust.linux, creation.adjust.hooks
    assert linux is not None
    assert hooks is not None
    forbidden = {
        "reject_hooks": rules.reject_hooks and bytes(hooks) != b"",
        "reject_seccomp": rules.reject_seccomp and linux.seccomp_policy is not None,
        "reject_namespaces": rules.reject_namespaces and bool(linux.namespaces),
        "reject_sysctls": rules.reject_sysctls and bool(linux.sysctl),
    }
    for key, found in forbidden.items():
        if found:
            raise FailedPrecondition(
                f"an NRI plugin adjusts what [nri] {key} forbids: change either configuration"
            )
