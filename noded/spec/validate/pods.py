"""Checks of a `PodSandboxConfig`."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable

from noded.errors import InvalidArgument, Unimplemented
from noded.model.host import CgroupDriver, HostFacts
from noded.model.pod import NamespaceMode, PodConfig, PortMapping
from noded.model.runtime import RuntimeFeatures
from noded.spec.sysctls import check_sysctls
from noded.spec.validate.limits import check_resources
from noded.spec.validate.profiles import check_apparmor, check_seccomp

_OPTIONS = "linux.security_context.namespace_options"
_MAX_HOSTNAME = 64  # HOST_NAME_MAX of Linux
_MAX_PORT = 65535
_IDS = 2**32 - 1  # (uid_t) -1 is no id


def validate_pod(config: PodConfig, features: RuntimeFeatures, host: HostFacts) -> None:
    """Raises: InvalidArgument naming the CRI field; Unimplemented for what the handler cannot do."""
    for field, value in (("name", config.key.name), ("namespace", config.key.namespace)):
        if not value:
            raise InvalidArgument(f"metadata.{field}: must not be empty")
    if len(config.hostname.encode()) > _MAX_HOSTNAME:
        raise InvalidArgument(f"hostname: {config.hostname!r} is longer than {_MAX_HOSTNAME} bytes")
    _check_words("hostname", (config.hostname,))
    if config.dns is not None:
        for field in ("servers", "searches", "options"):
            _check_words(f"dns_config.{field}", getattr(config.dns, field))
    if config.log_directory and not config.log_directory.startswith("/"):
        raise InvalidArgument(f"log_directory: {config.log_directory!r} must be an absolute path")
    check_cgroup_parent(config.cgroup_parent, host)
    for mapping in config.port_mappings:
        _check_port(mapping)
    _check_namespaces(config)
    _check_user_namespace(config, features)
    check_sysctls(
        config.sysctls,
        host_network=config.host_network,
        host_ipc=config.namespaces.ipc is NamespaceMode.NODE,
    )
    security = config.security
    check_seccomp(security.seccomp, "linux.security_context.seccomp")
    check_apparmor(security.apparmor, host, "linux.security_context.apparmor")
    for field, resources in (("linux.overhead", config.overhead), ("linux.resources", config.resources)):
        if resources is not None:
            check_resources(resources, host, field)


def check_cgroup_parent(parent: str, host: HostFacts) -> None:
    """A slice with the systemd driver, a path with cgroupfs; "" leaves the choice to noded.

    Raises: InvalidArgument.
    """
    if not parent:
        return
    if "\0" in parent or ".." in parent.split("/"):
        raise InvalidArgument(f"linux.cgroup_parent: {parent!r} must not contain '..'")
    is_slice = posixpath.basename(parent.rstrip("/")).endswith(".slice")
    if host.cgroup_driver is CgroupDriver.SYSTEMD and not is_slice:
        raise InvalidArgument(
            f"linux.cgroup_parent: {parent!r} must end in .slice, since noded uses the systemd cgroup driver"
        )
    if host.cgroup_driver is CgroupDriver.CGROUPFS and is_slice:
        raise InvalidArgument(
            f"linux.cgroup_parent: {parent!r} is a systemd slice, but noded uses the cgroupfs cgroup driver"
        )


def _check_words(field: str, words: Iterable[str]) -> None:
    """Each becomes one word of a file of lines, as resolv.conf and hosts are."""
    for word in words:
        if any(character.isspace() or not character.isprintable() for character in word):
            raise InvalidArgument(f"{field}: {word!r} must not contain white space or control characters")


def _check_port(mapping: PortMapping) -> None:
    for field, value in (("container_port", mapping.container_port), ("host_port", mapping.host_port)):
        if not 0 <= value <= _MAX_PORT:
            raise InvalidArgument(f"port_mappings.{field}: {value} is not a port number")


def _check_namespaces(config: PodConfig) -> None:
    options = config.namespaces
    for field, mode in (("network", options.network), ("ipc", options.ipc)):
        if mode not in (NamespaceMode.POD, NamespaceMode.NODE):
            raise InvalidArgument(f"{_OPTIONS}.{field}: a sandbox takes POD or NODE, not {mode.name}")
    if options.pid is NamespaceMode.TARGET:
        raise InvalidArgument(f"{_OPTIONS}.pid: TARGET is for containers, a sandbox has nothing to join yet")


def _check_user_namespace(config: PodConfig, features: RuntimeFeatures) -> None:
    options, userns = config.namespaces, config.namespaces.userns
    if userns is None:
        return
    field = f"{_OPTIONS}.userns_options"
    if userns.mode is NamespaceMode.NODE:
        if userns.uids or userns.gids:
            raise InvalidArgument(f"{field}: NODE uses the node's ids, so uids and gids must be empty")
        return
    if userns.mode is not NamespaceMode.POD:
        raise InvalidArgument(f"{field}.mode: takes POD or NODE, not {userns.mode.name}")
    for kind, mappings in (("uids", userns.uids), ("gids", userns.gids)):
        if len(mappings) != 1:
            raise InvalidArgument(f"{field}.{kind}: needs exactly one mapping, has {len(mappings)}")
        mapping = mappings[0]
        if mapping.container_id != 0:
            raise InvalidArgument(
                f"{field}.{kind}: must map container id 0, begins at {mapping.container_id}"
            )
        if mapping.length <= 0 or mapping.host_id + mapping.length > _IDS:
            raise InvalidArgument(
                f"{field}.{kind}: {mapping.length} ids from {mapping.host_id} are not within 1 to {_IDS}"
            )
    if userns.uids[0].length != userns.gids[0].length:
        raise InvalidArgument(
            f"{field}: uids and gids must map equally many ids, "
            f"they map {userns.uids[0].length} and {userns.gids[0].length}"
        )
    for name, mode in (("pid", options.pid), ("ipc", options.ipc)):
        if mode is NamespaceMode.NODE:
            raise InvalidArgument(
                f"{_OPTIONS}.{name}: NODE cannot be combined with a user namespace, "
                f"the kernel lets only the owner of a namespace mount its file system"
            )
    if not features.user_namespaces:
        raise Unimplemented(
            f"{field}: this runtime handler has no user namespaces; choose another RuntimeClass or "
            f"set hostUsers: true"
        )
