"""Mounts of a container: kernel file systems, the pod's files, image VOLUMEs, CRI mounts."""

from __future__ import annotations

import posixpath
from typing import Any

from noded.errors import FailedPrecondition
from noded.model.container import MountPropagation
from noded.model.host import CgroupMode
from noded.model.pod import NamespaceMode
from noded.spec.inputs import ContainerInputs, ResolvedMount
from noded.spec.namespaces import mapped, oci_mappings, user_namespace

_TTY_GID = 5  # group "tty", fixed by Linux distributions; grantpt(3) expects it
_KERNEL_TREES = ("/dev", "/proc", "/sys")

_PROPAGATION = {
    MountPropagation.PRIVATE: "rprivate",
    MountPropagation.HOST_TO_CONTAINER: "rslave",
    MountPropagation.BIDIRECTIONAL: "rshared",
}


def container_mounts(inputs: ContainerInputs) -> list[dict[str, Any]]:
    """All mounts, parents before children.

    A CRI mount replaces a default at the same place, and hides defaults below it where it covers
    a kernel tree: a host's /dev brings its own pts and shm.

    Raises: FailedPrecondition when the node's mounts cannot give the propagation asked for.
    """
    asked = [_cri_mount(resolved, inputs) for resolved in inputs.mounts]
    taken = {mount["destination"] for mount in asked}
    covering = tuple(f"{path}/" for path in taken if path in _KERNEL_TREES)
    below = [*_kernel_mounts(inputs), *_pod_mounts(inputs)]
    defaults = [
        mount
        for mount in below
        if mount["destination"] not in taken and not mount["destination"].startswith(covering)
    ]
    volumes = [mount for mount in _volumes(inputs) if mount["destination"] not in taken]
    nodes = [mount for mount in _node_mounts(inputs) if mount["destination"] not in taken]
    replaced = {mount["destination"] for mount in (*volumes, *nodes)}
    volumes = [mount for mount in volumes if mount["destination"] not in {m["destination"] for m in nodes}]
    defaults = [mount for mount in defaults if mount["destination"] not in replaced]
    return sorted([*defaults, *volumes, *nodes, *asked], key=depth)


def rootfs_propagation(inputs: ContainerInputs) -> str:
    """`linux.rootfsPropagation`: at least what the most open mount needs, "" = the runtime's own.

    Not the recursive forms that peers write: the specification has none, and mounts of the node
    that are shared stay so in the runtime's copy of its mount table (seen with runc and crun).
    """
    modes = {resolved.mount.propagation for resolved in inputs.mounts}
    if MountPropagation.BIDIRECTIONAL in modes:
        return "shared"
    return "slave" if MountPropagation.HOST_TO_CONTAINER in modes else ""


def destination(path: str) -> str:
    """A container path in its one canonical form."""
    return posixpath.normpath("/" + path.lstrip("/"))


def depth(mount: dict[str, Any]) -> int:
    """Components of the destination; the sort is stable, so the client's order decides ties."""
    path: str = mount["destination"]
    return 0 if path == "/" else path.count("/")


def _kernel_mounts(inputs: ContainerInputs) -> list[dict[str, Any]]:
    writable = "rw" if inputs.privileged else "ro"
    safe = ["nosuid", "noexec", "nodev"]
    userns = user_namespace(inputs.pod)
    pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]
    if userns is None or mapped(userns.gids, _TTY_GID):
        pts.append(f"gid={_TTY_GID}")
    if userns is not None and inputs.pod.host_network:
        # sysfs shows the network namespace's devices: only its owner may mount one.
        recursive = writable == "ro" and inputs.features.recursive_read_only_mounts
        sysfs = _bind("/sys", "/sys", [*safe, "rro" if recursive else writable])
    else:
        sysfs = _mount("/sys", "sysfs", [*safe, writable])
    cgroup = "rw" if inputs.privileged or _cgroup_writable(inputs) else "ro"
    return [
        _mount("/proc", "proc", safe),
        _mount("/dev", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        _mount("/dev/pts", "devpts", pts),
        _mount("/dev/mqueue", "mqueue", safe),
        sysfs,
        _mount("/sys/fs/cgroup", "cgroup", [*safe, "relatime", cgroup]),
    ]


def _cgroup_writable(inputs: ContainerInputs) -> bool:
    return inputs.policy.cgroup_writable and inputs.host.cgroup_mode is CgroupMode.V2


def _pod_mounts(inputs: ContainerInputs) -> list[dict[str, Any]]:
    files = inputs.files
    writable = "ro" if inputs.container.security.readonly_rootfs else "rw"
    safe = ["nosuid", "noexec", "nodev"]
    mounts = [_shm(inputs)]
    for path, source in (
        ("/etc/resolv.conf", files.resolv_conf),
        ("/etc/hostname", files.hostname),
        ("/etc/hosts", files.hosts),
    ):
        if source is not None:
            mounts.append(_bind(path, source, [*safe, writable]))
    if files.localtime is not None:
        mounts.append(_bind("/etc/localtime", files.localtime, [*safe, "ro"]))
    return mounts


def _shm(inputs: ContainerInputs) -> dict[str, Any]:
    safe = ["nosuid", "noexec", "nodev"]
    if inputs.files.shm is not None:
        return _bind("/dev/shm", inputs.files.shm, safe)
    if inputs.pod.namespaces.ipc is NamespaceMode.NODE:
        return _bind("/dev/shm", "/dev/shm", safe)
    return _mount("/dev/shm", "tmpfs", [*safe, "mode=1777", "size=65536k"], source="shm")


def _volumes(inputs: ContainerInputs) -> list[dict[str, Any]]:
    options = ["nodev", "rw"]
    found = {destination(volume.container_path): volume.source for volume in inputs.volumes}
    return [_bind(path, found[path], options) for path in sorted(found)]


def _node_mounts(inputs: ContainerInputs) -> list[dict[str, Any]]:
    found = {destination(mount.container_path): mount.source for mount in inputs.node_mounts}
    return [_bind(path, found[path], ["nosuid", "nodev", "ro"]) for path in sorted(found)]


def _cri_mount(resolved: ResolvedMount, inputs: ContainerInputs) -> dict[str, Any]:
    mount = resolved.mount
    _check_propagation(resolved)
    path = destination(mount.container_path)
    options = ["rbind", _PROPAGATION[mount.propagation]]
    if mount.image:
        # An image is files of a stranger: no device node and no set-user-ID bit in it counts.
        options += ["nosuid", "nodev"]
    if mount.recursive_read_only:
        options.append("rro")
    else:
        options.append("ro" if mount.readonly or mount.image else "rw")
    value: dict[str, Any] = {
        "destination": path,
        "type": "bind",
        "source": resolved.source,
        "options": options,
    }
    # An image is mounted with the pod's mapping already.
    if not mount.image and (mount.uid_mappings or mount.gid_mappings):
        value["uidMappings"] = oci_mappings(mount.uid_mappings)
        value["gidMappings"] = oci_mappings(mount.gid_mappings)
    return value


def _check_propagation(resolved: ResolvedMount) -> None:
    mount = resolved.mount
    if mount.propagation is MountPropagation.BIDIRECTIONAL and not resolved.parent_shared:
        raise FailedPrecondition(
            f"mounts: {mount.host_path!r} asks for BIDIRECTIONAL propagation, but the node's mount "
            f"{resolved.parent!r} that holds it is not shared: run `mount --make-shared {resolved.parent}`"
        )
    if mount.propagation is MountPropagation.HOST_TO_CONTAINER and not (
        resolved.parent_shared or resolved.parent_slave
    ):
        raise FailedPrecondition(
            f"mounts: {mount.host_path!r} asks for HOST_TO_CONTAINER propagation, but the node's mount "
            f"{resolved.parent!r} that holds it is neither shared nor a slave: run "
            f"`mount --make-shared {resolved.parent}`"
        )


def _mount(path: str, kind: str, options: list[str], *, source: str = "") -> dict[str, Any]:
    return {"destination": path, "type": kind, "source": source or kind, "options": options}


def _bind(path: str, source: str, options: list[str]) -> dict[str, Any]:
    return {
        "destination": path,
        "type": "bind",
        "source": source,
        "options": ["rbind", "rprivate", *options],
    }
