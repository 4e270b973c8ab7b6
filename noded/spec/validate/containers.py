"""Checks of a `ContainerConfig` against the pod it is to run in."""

from __future__ import annotations

import re

from noded.errors import InvalidArgument, RROUnsupported, Unimplemented
from noded.model.container import ContainerConfig, ContainerSecurity, Device, Mount, MountPropagation
from noded.model.host import HostFacts
from noded.model.pod import NamespaceMode, NamespaceOptions, PodConfig
from noded.model.runtime import RuntimeFeatures
from noded.spec.capabilities import canonical
from noded.spec.mounts import destination
from noded.spec.user import check_user
from noded.spec.validate.limits import check_resources
from noded.spec.validate.profiles import check_apparmor, check_seccomp

_CONTEXT = "linux.security_context"
_OPTIONS = f"{_CONTEXT}.namespace_options"
_PERMISSIONS = re.compile(r"[rwm]{0,3}")


def validate_container(
    config: ContainerConfig,
    pod: PodConfig,
    features: RuntimeFeatures,
    host: HostFacts,
    *,
    minimum_memory_bytes: int = 0,
) -> None:
    """Refuse a container before anything of it is made.

    Raises: InvalidArgument naming the CRI field; RROUnsupported and Unimplemented for what the
    handler cannot do; FailedPrecondition for what the node cannot.
    """
    if not config.name:
        raise InvalidArgument("metadata.name: must not be empty")
    if not config.image:
        raise InvalidArgument("image.image: must name an image")
    check_log_path(config.log_path)
    if config.working_dir and not config.working_dir.startswith("/"):
        raise InvalidArgument(f"working_dir: {config.working_dir!r} must be an absolute path")
    for index, mount in enumerate(config.mounts):
        _check_mount(mount, features, f"mounts[{index}]")
    for index, device in enumerate(config.devices):
        _check_device(device, f"devices[{index}]")
    if config.resources is not None:
        check_resources(config.resources, host, "linux.resources", minimum_memory_bytes=minimum_memory_bytes)
    _check_security(config.security, pod, host)
    _check_namespaces(config.security.namespaces, pod.namespaces)


def check_log_path(path: str) -> None:
    """A log path is relative to the pod's log directory and stays in it. Raises: InvalidArgument."""
    if path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise InvalidArgument(f"log_path: {path!r} must be relative to log_directory, without '..'")


def _check_mount(mount: Mount, features: RuntimeFeatures, field: str) -> None:
    if not mount.container_path.startswith("/"):
        raise InvalidArgument(f"{field}.container_path: {mount.container_path!r} must be an absolute path")
    if "\0" in mount.container_path + mount.host_path:
        raise InvalidArgument(f"{field}: a path contains a NUL")
    if destination(mount.container_path) == "/":
        raise InvalidArgument(f"{field}.container_path: the root of the container cannot be replaced")
    if mount.image:
        _check_image_mount(mount, field)
    elif not mount.host_path:
        raise InvalidArgument(f"{field}.host_path: a mount needs a host_path or an image")
    elif not mount.host_path.startswith("/"):
        raise InvalidArgument(f"{field}.host_path: {mount.host_path!r} must be an absolute path")
    _check_recursive_read_only(mount, features, field)
    if bool(mount.uid_mappings) != bool(mount.gid_mappings):
        raise InvalidArgument(f"{field}: uidMappings and gidMappings must be given together")
    if mount.uid_mappings and not features.idmap_mounts:
        raise Unimplemented(
            f"{field}: this runtime handler cannot map the owners of a mount (idmapped mounts); choose "
            f"another RuntimeClass or set hostUsers: true"
        )


def _check_image_mount(mount: Mount, field: str) -> None:
    if mount.host_path:
        raise InvalidArgument(f"{field}: host_path and image exclude each other")
    if not mount.readonly:
        raise InvalidArgument(f"{field}.readonly: an image volume is read-only, readonly must be true")
    if ".." in mount.image_sub_path.split("/") or mount.image_sub_path.startswith("/"):
        raise InvalidArgument(
            f"{field}.image_sub_path: {mount.image_sub_path!r} must be relative to the image, without '..'"
        )


def _check_recursive_read_only(mount: Mount, features: RuntimeFeatures, field: str) -> None:
    if not mount.recursive_read_only:
        return
    if not mount.readonly:
        raise InvalidArgument(f"{field}.recursive_read_only: needs readonly")
    if mount.propagation is not MountPropagation.PRIVATE:
        raise InvalidArgument(
            f"{field}.recursive_read_only: needs propagation PROPAGATION_PRIVATE, "
            f"mounts that arrive later would be writable"
        )
    if not features.recursive_read_only_mounts:
        raise RROUnsupported(
            f"{field}.recursive_read_only: this runtime handler cannot make mounts recursively read-only"
        )


def _check_device(device: Device, field: str) -> None:
    for name, path in (("container_path", device.container_path), ("host_path", device.host_path)):
        if not path.startswith("/") or "\0" in path or ".." in path.split("/"):
            raise InvalidArgument(f"{field}.{name}: {path!r} must be an absolute path without '..'")
    if not _PERMISSIONS.fullmatch(device.permissions):
        raise InvalidArgument(f"{field}.permissions: {device.permissions!r} is not made of r, w and m")


def _check_security(security: ContainerSecurity, pod: PodConfig, host: HostFacts) -> None:
    if security.privileged and not pod.security.privileged:
        raise InvalidArgument(
            f"{_CONTEXT}.privileged: the sandbox was not made for privileged containers; set it there too"
        )
    check_user(security)
    for which, names in (
        ("add_capabilities", security.add_capabilities),
        ("drop_capabilities", security.drop_capabilities),
        ("add_ambient_capabilities", security.add_ambient_capabilities),
    ):
        for name in names:
            canonical(name, f"{_CONTEXT}.capabilities.{which}")
    for field, paths in (
        ("masked_paths", security.masked_paths),
        ("readonly_paths", security.readonly_paths),
    ):
        for path in paths:
            if not path.startswith("/"):
                raise InvalidArgument(f"{_CONTEXT}.{field}: {path!r} must be an absolute path")
    if not security.privileged:
        check_seccomp(security.seccomp, f"{_CONTEXT}.seccomp")
    check_apparmor(security.apparmor, host, f"{_CONTEXT}.apparmor")


def _check_namespaces(options: NamespaceOptions, pod: NamespaceOptions) -> None:
    """A container may be more isolated than its pod, never less.

    Fields that a client leaves at their zero value (POD) follow the sandbox.
    """
    for field, own, its in (("network", options.network, pod.network), ("ipc", options.ipc, pod.ipc)):
        if own not in (NamespaceMode.POD, NamespaceMode.NODE):
            raise InvalidArgument(f"{_OPTIONS}.{field}: a container takes POD or NODE, not {own.name}")
        if own is NamespaceMode.NODE and its is not NamespaceMode.NODE:
            raise InvalidArgument(f"{_OPTIONS}.{field}: NODE, but the sandbox has a namespace of its own")
    if options.pid is NamespaceMode.NODE and pod.pid is not NamespaceMode.NODE:
        raise InvalidArgument(f"{_OPTIONS}.pid: NODE, but the sandbox does not use the node's processes")
    if options.pid is NamespaceMode.TARGET and not options.target_id:
        raise InvalidArgument(f"{_OPTIONS}.target_id: must name a container when pid is TARGET")
    if options.userns is not None and options.userns != pod.userns:
        own_node = options.userns.mode is NamespaceMode.NODE
        if not (own_node and (pod.userns is None or pod.userns.mode is NamespaceMode.NODE)):
            raise InvalidArgument(f"{_OPTIONS}.userns_options: must be the same as the sandbox's")
