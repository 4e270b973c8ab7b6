"""From CRI `ContainerConfig` to the model's."""

from __future__ import annotations

from noded.edge.cri import decode_linux as linux
from noded.edge.cri.fields import enum, ids, optional_id, present, required
from noded.edge.cri.signals import name_of
from noded.errors import InvalidArgument
from noded.model.container import ContainerConfig, ContainerSecurity, Device, Mount, MountPropagation
from noded.model.pod import GroupsPolicy
from noded.proto.runtime import v1


def container_config(message: v1.ContainerConfig | None, path: str = "config") -> ContainerConfig:
    """Translate; absent submessages become None or their defaults.

    Raises: InvalidArgument naming the field, e.g. `config.envs[2].value`.
    """
    message = present(message, path)
    metadata = present(message.metadata, f"{path}.metadata")
    image = present(message.image, f"{path}.image")
    container = message.linux or v1.LinuxContainerConfig()
    return ContainerConfig(
        name=required(metadata.name, f"{path}.metadata.name"),
        attempt=metadata.attempt,
        image=required(image.image, f"{path}.image.image"),
        user_specified_image=image.user_specified_image,
        command=tuple(message.command),
        args=tuple(message.args),
        working_dir=message.working_dir,
        envs=tuple(_env(item, f"{path}.envs[{index}]") for index, item in enumerate(message.envs)),
        mounts=tuple(_mount(item, f"{path}.mounts[{index}]") for index, item in enumerate(message.mounts)),
        devices=tuple(
            Device(item.container_path, item.host_path, item.permissions) for item in message.devices
        ),
        cdi_devices=tuple(item.name for item in message.CDI_devices),
        labels=dict(message.labels),
        annotations=dict(message.annotations),
        log_path=message.log_path,
        stdin=message.stdin,
        stdin_once=message.stdin_once,
        tty=message.tty,
        resources=linux.resources(container.resources),
        security=_security(container.security_context, f"{path}.linux.security_context"),
        stop_signal=name_of(message.stop_signal, f"{path}.stop_signal"),
    )


def container_config_of(request: bytes) -> ContainerConfig:
    """The config of a stored CreateContainerRequest, as `Containers.create` received it."""
    return container_config(v1.CreateContainerRequest.parse(request).config)


def _env(message: v1.KeyValue, path: str) -> tuple[str, str]:
    try:
        return message.key, message.value.decode()
    except UnicodeDecodeError as error:
        # An OCI spec is JSON, which cannot carry other bytes.
        raise InvalidArgument(
            f"{path}.value: the value of {message.key} is not UTF-8 (byte {error.start})"
        ) from None


def _mount(message: v1.Mount, path: str) -> Mount:
    return Mount(
        container_path=message.container_path,
        host_path=message.host_path,
        readonly=message.readonly,
        selinux_relabel=message.selinux_relabel,
        propagation=enum(MountPropagation, message.propagation, f"{path}.propagation"),
        uid_mappings=linux.id_mappings(message.uid_mappings),
        gid_mappings=linux.id_mappings(message.gid_mappings),
        recursive_read_only=message.recursive_read_only,
        image="" if message.image is None else message.image.image,
        image_sub_path=message.image_sub_path,
    )


def _security(message: v1.LinuxContainerSecurityContext | None, path: str) -> ContainerSecurity:
    if message is None:
        return ContainerSecurity()
    capabilities = message.capabilities or v1.Capability()
    return ContainerSecurity(
        add_capabilities=tuple(capabilities.add_capabilities),
        drop_capabilities=tuple(capabilities.drop_capabilities),
        add_ambient_capabilities=tuple(capabilities.add_ambient_capabilities),
        privileged=message.privileged,
        namespaces=linux.namespaces(message.namespace_options, f"{path}.namespace_options"),
        selinux=linux.selinux(message.selinux_options),
        run_as_user=optional_id(message.run_as_user, f"{path}.run_as_user"),
        run_as_group=optional_id(message.run_as_group, f"{path}.run_as_group"),
        run_as_username=message.run_as_username,
        readonly_rootfs=message.readonly_rootfs,
        supplemental_groups=ids(message.supplemental_groups, f"{path}.supplemental_groups"),
        supplemental_groups_policy=enum(
            GroupsPolicy, message.supplemental_groups_policy, f"{path}.supplemental_groups_policy"
        ),
        no_new_privs=message.no_new_privs,
        masked_paths=tuple(message.masked_paths),
        readonly_paths=tuple(message.readonly_paths),
        seccomp=linux.profile(
            message.seccomp, f"{path}.seccomp", message.seccomp_profile_path, f"{path}.seccomp_profile_path"
        ),
        apparmor=linux.profile(
            message.apparmor, f"{path}.apparmor", message.apparmor_profile, f"{path}.apparmor_profile"
        ),
    )
