"""What the configuration says about specs, as the value that spec generation takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from noded.config import Config, HandlerConfig
from noded.spec.inputs import Rlimit, SpecPolicy


def spec_policy(
    config: Config,
    handler: HandlerConfig,
    rlimits: tuple[Rlimit, ...],
    *,
    default_seccomp: Mapping[str, Any] | None = None,
    privileged_seccomp: Mapping[str, Any] | None = None,
    base: Mapping[str, Any] | None = None,
) -> SpecPolicy:
    """The policy for containers of a handler, without what annotations add.

    Args:
        rlimits: `default_ulimits`, parsed.
        default_seccomp: contents of the handler's `seccomp_profile`, None when it has none.
        privileged_seccomp: those of its `privileged_seccomp_profile`.
        base: contents of its `base_spec`, None when it has none.
    """
    return SpecPolicy(
        default_capabilities=config.default_capabilities,
        rlimits=rlimits,
        pids_limit=config.pids_limit or None,
        environment=tuple(config.default_env.items()),
        device_ownership_from_security_context=config.device_ownership_from_security_context,
        privileged_without_host_devices=handler.privileged_without_host_devices,
        cgroup_writable=handler.cgroup_writable,
        annotations=handler.default_annotations,
        apparmor_profile=handler.apparmor_profile,
        base=base,
        exec_cpu_affinity=handler.exec_cpu_affinity,
        default_seccomp=default_seccomp,
        privileged_seccomp=privileged_seccomp,
    )
