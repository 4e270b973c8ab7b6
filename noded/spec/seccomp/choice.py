"""Which profile a container or a pod's init gets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from noded.errors import InvalidArgument
from noded.model.host import HostFacts
from noded.model.pod import ProfileType
from noded.spec.inputs import ContainerInputs, SpecPolicy
from noded.spec.seccomp.default import default_profile
from noded.spec.seccomp.notify import telling
from noded.spec.seccomp.profile import resolve_profile


def container_seccomp(inputs: ContainerInputs, capabilities: frozenset[str]) -> dict[str, Any] | None:
    """`linux.seccomp`, or None for no filter.

    No field means unconfined, as the CRI defines (the kubelet sends RuntimeDefault where its
    `seccompDefault` says so). Privileged containers have no filter, whatever the field says, but the one that
    the handler's configuration gives them.

    Raises: InvalidArgument for a Localhost profile that was not loaded; FailedPrecondition for one whose
    calls cannot be told.
    """
    filter_ = _chosen(inputs, capabilities)
    if inputs.seccomp_mode is None or inputs.privileged:
        return filter_
    return telling(filter_, inputs.seccomp_mode, inputs.seccomp_listener, inputs.host.architecture)


def _chosen(inputs: ContainerInputs, capabilities: frozenset[str]) -> dict[str, Any] | None:
    if inputs.privileged:
        profile = inputs.policy.privileged_seccomp
        return None if profile is None else _resolved(profile, inputs.host, capabilities)
    chosen = inputs.container.security.seccomp
    kind = ProfileType.UNCONFINED if chosen is None else chosen.type
    if kind is ProfileType.RUNTIME_DEFAULT:
        return runtime_default(inputs.host, inputs.policy, capabilities)
    if inputs.seccomp_profile is not None:
        return _resolved(inputs.seccomp_profile, inputs.host, capabilities)
    if kind is ProfileType.LOCALHOST and chosen is not None:
        raise InvalidArgument(
            f"linux.security_context.seccomp.localhost_ref: profile {chosen.localhost_ref!r} is not loaded"
        )
    return None


def runtime_default(host: HostFacts, policy: SpecPolicy, capabilities: Iterable[str]) -> dict[str, Any]:
    """What RuntimeDefault means on this node."""
    if policy.default_seccomp is None:
        return default_profile(host.architecture, capabilities)
    return _resolved(policy.default_seccomp, host, capabilities)


def _resolved(profile: Mapping[str, Any], host: HostFacts, capabilities: Iterable[str]) -> dict[str, Any]:
    return resolve_profile(
        profile,
        architecture=host.architecture,
        capabilities=capabilities,
        kernel=host.kernel,
    )
