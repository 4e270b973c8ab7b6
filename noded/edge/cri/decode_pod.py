"""From CRI `PodSandboxConfig` to `PodConfig`."""

from __future__ import annotations

from noded.edge.cri import decode_linux as linux
from noded.edge.cri.fields import enum, ids, optional_id, present, required
from noded.errors import InvalidArgument
from noded.model.pod import (
    DNSConfig,
    GroupsPolicy,
    PodConfig,
    PortMapping,
    PortProtocol,
    SandboxKey,
    SandboxSecurity,
)
from noded.proto.runtime import v1

_HIGHEST_PORT = 65535


def pod_config(message: v1.PodSandboxConfig | None, path: str = "config") -> PodConfig:
    """Translate; absent submessages become None or their defaults.

    Raises: InvalidArgument naming the field, e.g. `config.metadata.name`.
    """
    message = present(message, path)
    metadata = present(message.metadata, f"{path}.metadata")
    pod = message.linux or v1.LinuxPodSandboxConfig()
    return PodConfig(
        key=SandboxKey(
            namespace=metadata.namespace,
            name=required(metadata.name, f"{path}.metadata.name"),
            uid=metadata.uid,
            attempt=metadata.attempt,
        ),
        hostname=message.hostname,
        log_directory=message.log_directory,
        dns=_dns(message.dns_config),
        port_mappings=tuple(
            _port_mapping(item, f"{path}.port_mappings[{index}]")
            for index, item in enumerate(message.port_mappings)
        ),
        labels=dict(message.labels),
        annotations=dict(message.annotations),
        cgroup_parent=pod.cgroup_parent,
        sysctls=dict(pod.sysctls),
        overhead=linux.resources(pod.overhead),
        resources=linux.resources(pod.resources),
        security=_security(pod.security_context, f"{path}.linux.security_context"),
    )


def pod_config_of(request: bytes) -> PodConfig:
    """The config of a stored RunPodSandboxRequest, as `Sandboxes.run` received it."""
    return pod_config(v1.RunPodSandboxRequest.parse(request).config)


def _dns(message: v1.DnsConfig | None) -> DNSConfig | None:
    if message is None:
        return None
    return DNSConfig(tuple(message.servers), tuple(message.searches), tuple(message.options))


def _port_mapping(message: v1.PortMapping, path: str) -> PortMapping:
    return PortMapping(
        protocol=enum(PortProtocol, message.protocol, f"{path}.protocol"),
        container_port=_port(message.container_port, f"{path}.container_port"),
        host_port=_port(message.host_port, f"{path}.host_port"),
        host_ip=message.host_ip,
    )


def _port(value: int, path: str) -> int:
    if not 0 <= value <= _HIGHEST_PORT:
        raise InvalidArgument(f"{path}: {value} is not a port number")
    return value


def _security(message: v1.LinuxSandboxSecurityContext | None, path: str) -> SandboxSecurity:
    if message is None:
        return SandboxSecurity()
    return SandboxSecurity(
        namespaces=linux.namespaces(message.namespace_options, f"{path}.namespace_options"),
        selinux=linux.selinux(message.selinux_options),
        run_as_user=optional_id(message.run_as_user, f"{path}.run_as_user"),
        run_as_group=optional_id(message.run_as_group, f"{path}.run_as_group"),
        readonly_rootfs=message.readonly_rootfs,
        supplemental_groups=ids(message.supplemental_groups, f"{path}.supplemental_groups"),
        supplemental_groups_policy=enum(
            GroupsPolicy, message.supplemental_groups_policy, f"{path}.supplemental_groups_policy"
        ),
        privileged=message.privileged,
        seccomp=linux.profile(
            message.seccomp, f"{path}.seccomp", message.seccomp_profile_path, f"{path}.seccomp_profile_path"
        ),
        apparmor=linux.profile(message.apparmor, f"{path}.apparmor", "", ""),
    )
