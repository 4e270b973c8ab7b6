"""What an operator calls an input: a field of the CRI request, a key of the image or the configuration."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from noded.model.host import HostFacts
from noded.model.image import ImageConfig
from noded.model.pod import PodConfig, ProfileType
from noded.model.runtime import RuntimeFeatures
from noded.spec.classes import class_of
from noded.spec.explain.atoms import Atom, Path
from noded.spec.explain.case import Case
from noded.spec.inputs import (
    ContainerInputs,
    NodeMount,
    ResolvedMount,
)


class Kind(StrEnum):
    """Who decides. In the order in which, of two that both do, the first is named."""

    REQUEST = "request"  # a field of the CreateContainerRequest
    ANNOTATION = "annotation"
    PROFILE = "profile"  # a seccomp profile of a file or a registry
    IMAGE = "image"
    HANDLER = "handler"  # a key of [runtimes.HANDLER]
    CONFIG = "config"  # another key of the configuration
    CDI = "cdi"
    HOOKS = "hooks"  # a file of the administrator's hook directories
    PLUGIN = "plugin"
    NRI = "nri"
    NODED = "noded"  # ids, paths and namespaces that noded has made for the container
    HOST = "host"  # a fact, often a limit, of the node
    RUNTIME = "runtime"  # what the runtime can or needs
    DEFAULT = "default"
    CHANGED = "changed"  # today's configuration or node would give something else


ORDER = {kind: position for position, kind in enumerate(Kind)}


@dataclass(frozen=True, slots=True)
class Source:
    """One source.

    Args:
        name: `config.…` and `sandbox_config.…` are fields of the CRI's CreateContainerRequest, those of an
            image keys of its OCI configuration, those of the configuration its TOML keys.
        note: one more sentence for people.
    """

    kind: Kind
    name: str
    note: str = ""


# Fields of the model's values whose CRI field has another name, as a path from the message of the value.
_CRI = {
    "SandboxKey": {},
    "PodConfig": {
        "key": "metadata",
        "dns": "dns_config",
        "cgroup_parent": "linux.cgroup_parent",
        "sysctls": "linux.sysctls",
        "overhead": "linux.overhead",
        "resources": "linux.resources",
        "security": "linux.security_context",
    },
    "SandboxSecurity": {"namespaces": "namespace_options", "selinux": "selinux_options"},
    "ContainerConfig": {
        "name": "metadata.name",
        "attempt": "metadata.attempt",
        "image": "image.image",
        "user_specified_image": "image.user_specified_image",
        "cdi_devices": "CDI_devices",
        "resources": "linux.resources",
        "security": "linux.security_context",
    },
    "ContainerSecurity": {
        "add_capabilities": "capabilities.add_capabilities",
        "drop_capabilities": "capabilities.drop_capabilities",
        "add_ambient_capabilities": "capabilities.add_ambient_capabilities",
        "namespaces": "namespace_options",
        "selinux": "selinux_options",
    },
    "NamespaceOptions": {"userns": "userns_options"},
    "SecurityProfile": {"type": "profile_type"},
    "DNSConfig": {},
    "Resources": {
        "cpu_period_us": "cpu_period",
        "cpu_quota_us": "cpu_quota",
        "memory_limit_bytes": "memory_limit_in_bytes",
        "memory_swap_limit_bytes": "memory_swap_limit_in_bytes",
    },
    "HugepageLimit": {"limit_bytes": "limit"},
    "Mount": {"image": "image.image"},
}
_IMAGE = {
    "env": "Env",
    "entrypoint": "Entrypoint",
    "cmd": "Cmd",
    "user": "User",
    "working_dir": "WorkingDir",
    "volumes": "Volumes",
    "stop_signal": "StopSignal",
    "labels": "Labels",
}
_CONFIG = {  # of SpecPolicy
    "default_capabilities": "default_capabilities",
    "rlimits": "default_ulimits",
    "pids_limit": "pids_limit",
    "environment": "default_env",
    "device_ownership_from_security_context": "device_ownership_from_security_context",
    "minimum_memory_bytes": "minimum_memory_bytes",
    "infra_cpus": "infra_ctr_cpuset",
    "shared_cpus": "shared_cpuset",
}
_HANDLER = {
    "default_seccomp": "seccomp_profile",
    "privileged_seccomp": "privileged_seccomp_profile",
    "annotations": "default_annotations",
    "allowed_annotations": "allowed_annotations",
    "privileged_without_host_devices": "privileged_without_host_devices",
    "cgroup_writable": "cgroup_writable",
    "base": "base_spec",
    "exec_cpu_affinity": "exec_cpu_affinity",
}
_NAMESPACES = {
    "net": "the pod's network namespace",
    "ipc": "the pod's IPC namespace",
    "uts": "the pod's UTS namespace",
    "user": "the pod's user namespace",
    "pid": "the PID namespace of the pod's init, or of the target container",
}
_FILES = {
    "resolv_conf": "the pod's resolv.conf, made from sandbox_config.dns_config",
    "hostname": "the pod's /etc/hostname",
    "hosts": "the pod's /etc/hosts, for containers that bring none",
    "shm": "the pod's /dev/shm",
}
_NODED = {
    "sandbox_id": "id of the pod sandbox",
    "container_id": "id of the container",
    "rootfs": "root file system, made from the image's layers",
    "cgroups_path": "cgroup, below sandbox_config.linux.cgroup_parent",
    "log_path": "log file, of sandbox_config.log_directory and config.log_path",
    "stop_signal": "stop signal of config.stop_signal, an annotation, or the image",
    "log_directory": "sandbox_config.log_directory",
    "init": "init of pods that share their PID namespace",
    "hostname": "the node's host name",
    "seccomp_listener": "socket of the container's system-call listener",
}


def source(case: Case, atom: Atom) -> Source | None:
    """The name of an input, None for one that has none yet: then it belongs into the tables above."""
    path, inputs = atom.path, case.inputs
    if path[0] in ("passwd", "group"):
        return Source(Kind.IMAGE, f"/etc/{path[0]}", "a file of the image")
    if path[0] in ("allowed_devices", "shared_cpuset"):
        return Source(Kind.CONFIG, path[0])
    if path[0] == "workloads":
        return Source(Kind.CONFIG, ".".join(map(str, path)))
    if path[0] == "handler":
        return Source(Kind.NODED, "runtime handler")
    head, rest = path[1], path[2:]
    if head in ("pod", "container"):
        return _request("sandbox_config" if head == "pod" else "config", getattr(inputs, head), rest)
    if head == "image":
        if rest[0] == "annotations":
            return Source(Kind.ANNOTATION, str(rest[1]), "of the image's manifest")
        name = _IMAGE.get(rest[0], "")
        return Source(Kind.IMAGE, _path(name, rest[1:])) if name else _plain(Kind.IMAGE, ImageConfig, rest)
    if head == "policy":
        return _policy(case, rest)
    if head == "host":
        return _plain(Kind.HOST, HostFacts, rest)
    if head == "features":
        return _plain(Kind.RUNTIME, RuntimeFeatures, rest)
    if head == "files":
        if rest[0] == "localtime":
            return Source(Kind.CONFIG, "timezone")
        return Source(Kind.NODED, _FILES[rest[0]]) if rest[0] in _FILES else None
    if head == "namespaces":
        return Source(Kind.NODED, _NAMESPACES[rest[0]]) if rest[0] in _NAMESPACES else None
    if isinstance(inputs, ContainerInputs) and (found := _resolved(case, inputs, atom, head, rest)):
        return found
    if head in ("process_label", "mount_label"):
        return Source(
            Kind.HOST,
            f"SELinux {head}",
            "of the policy's lxc_contexts, the pod's own level, and selinux_options",
        )
    return Source(Kind.NODED, _NODED[head]) if head in _NODED else None


def _resolved(case: Case, inputs: ContainerInputs, atom: Atom, head: str, rest: Path) -> Source | None:
    """What the engine has looked up for a field of the request or the image."""
    if head == "mounts":
        return _mount(inputs.mounts[rest[0]], rest[0], rest[1:])
    if head == "volumes":
        return Source(
            Kind.IMAGE, _path("Volumes", (inputs.volumes[rest[0]].container_path,)), "a VOLUME of the image"
        )
    if head == "node_mounts":
        return _node_mount(inputs.node_mounts[rest[0]])
    if head in ("block_io", "rdt_class"):
        kind = "rdt" if head == "rdt_class" else "blockio"
        chosen = class_of(kind, inputs.pod.annotations, inputs.container.name)
        return Source(Kind.ANNOTATION, chosen[0] if chosen else kind, f"a class of {kind}_config_file")
    if head == "devices":
        return _device(case, inputs, rest)
    if head == "host_devices":
        return Source(Kind.HOST, f"device {inputs.host_devices[rest[0]].container_path}")
    if head == "user":
        return _user(inputs, rest)
    if head == "seccomp_profile":
        choice = inputs.container.security.seccomp
        if choice is not None and choice.type is ProfileType.LOCALHOST:
            return Source(Kind.PROFILE, choice.localhost_ref, "named by linux.security_context.seccomp")
        return Source(Kind.PROFILE, "seccomp-profile", "an OCI artifact that an annotation names")
    if head == "seccomp_mode":
        return Source(Kind.ANNOTATION, "seccomp recorder or notifier", f"mode {atom.value}")
    return None


def cri_name(prefix: str, value: Any, path: Path) -> str:
    """The CRI field of a path from a PodConfig or ContainerConfig, e.g. `config.envs[2].value`."""
    name = prefix
    for index, part in enumerate(path):
        if isinstance(value, tuple):
            name += f"[{part}]"
            inner = value[part] if part < len(value) else None
            if isinstance(inner, tuple) and index == len(path) - 1:
                name += ".value"  # a variable of `envs`
            value = inner
        elif hasattr(value, part) if isinstance(part, str) else False:
            name += f".{_CRI.get(type(value).__name__, {}).get(part, part)}"
            value = getattr(value, part)
        else:
            name += f"[{part}]"
            value = value.get(part) if hasattr(value, "get") else None
    return name


# Optional numbers of the CRI are messages with one field.
_WRAPPED = ("run_as_user", "run_as_group")


def _request(prefix: str, value: Any, path: Path) -> Source:
    if path[0] == "annotations" and len(path) > 1:
        return Source(
            Kind.ANNOTATION,
            str(path[1]),
            "of the pod" if isinstance(value, PodConfig) else "of the container",
        )
    name = cri_name(prefix, value, path)
    if path[-1] in _WRAPPED:
        name += ".value"
    return Source(Kind.REQUEST, name)


def _policy(case: Case, path: Path) -> Source | None:
    inputs, field = case.inputs, path[0]
    rest = path[1:]
    if field in ("default_seccomp", "privileged_seccomp", "base"):
        rest = ()
    elif field == "rlimits" and rest:
        rest = (inputs.policy.rlimits[rest[0]].type.removeprefix("RLIMIT_").lower(),)
    elif field == "environment" and rest:
        rest = (inputs.policy.environment[rest[0]][0],)
    if field == "apparmor_profile":
        return Source(Kind.CONFIG, field, "of the node or of the runtime handler")
    if field in _HANDLER:
        return Source(Kind.HANDLER, _path(f"runtimes.{case.handler}.{_HANDLER[field]}", rest))
    if field in _CONFIG:
        return Source(Kind.CONFIG, _path(_CONFIG[field], rest))
    if field == "umask":
        return Source(Kind.ANNOTATION, "umask")
    return None


def _mount(resolved: ResolvedMount, index: int, path: Path) -> Source | None:
    place = f"config.mounts[{index}]"
    if not path:
        return Source(Kind.REQUEST, place)
    if path[0] == "mount":
        return Source(Kind.REQUEST, cri_name(place, resolved.mount, path[1:]))
    if path[0] == "source":
        if resolved.mount.image:
            return Source(Kind.REQUEST, f"{place}.image.image", "where noded has mounted the image")
        moved = resolved.source != resolved.mount.host_path
        return Source(Kind.REQUEST, f"{place}.host_path", "symbolic links resolved" if moved else "")
    return Source(Kind.HOST, f"propagation of the mount at {resolved.parent}")


def _node_mount(mount: NodeMount) -> Source:
    if mount.origin == "default_mounts_file":
        return Source(Kind.CONFIG, mount.origin, mount.container_path)
    if mount.origin == "fips":
        return Source(Kind.HOST, mount.origin, "the node is in FIPS mode")
    return Source(Kind.ANNOTATION, mount.origin, mount.container_path)


def _device(case: Case, inputs: ContainerInputs, path: Path) -> Source:
    device = inputs.devices[path[0]]
    asked = [
        index
        for index, one in enumerate(inputs.container.devices)
        if device.container_path == one.container_path
        or device.container_path.startswith(f"{one.container_path}/")
    ]
    if len(path) == 1 or path[1] in ("container_path", "permissions"):
        if asked:
            return Source(
                Kind.REQUEST, f"config.devices[{asked[-1]}]" + "".join(f".{part}" for part in path[1:])
            )
        keys = [key for key in inputs.pod.annotations if "devices" in key.lower()]
        return Source(Kind.ANNOTATION, keys[0] if keys else "devices", f"device {device.container_path}")
    return Source(Kind.HOST, f"device {device.container_path}", "as the node has it")


def _user(inputs: ContainerInputs, path: Path) -> Source:
    security = inputs.container.security
    place = "config.linux.security_context"
    if path[0] == "uid" and security.run_as_user is not None:
        return Source(Kind.REQUEST, f"{place}.run_as_user.value")
    if path[0] == "gid" and security.run_as_group is not None:
        return Source(Kind.REQUEST, f"{place}.run_as_group.value")
    if path[0] == "additional_gids":
        gid = inputs.user.additional_gids[path[1]] if len(path) > 1 else None
        if gid in security.supplemental_groups:
            index = security.supplemental_groups.index(gid)
            return Source(Kind.REQUEST, f"{place}.supplemental_groups[{index}]")
        if gid == inputs.user.gid:
            return _user(inputs, ("gid",))
    if security.run_as_username:
        return Source(Kind.REQUEST, f"{place}.run_as_username", "looked up in the image's /etc/passwd")
    if security.run_as_user is not None:
        return Source(Kind.IMAGE, "/etc/passwd and /etc/group", "of the user that the request names")
    if inputs.image.user:
        return Source(Kind.IMAGE, "User", "looked up in the image's /etc/passwd and /etc/group")
    return Source(Kind.IMAGE, "/etc/passwd and /etc/group", "the image names no user: root")


def _plain(kind: Kind, owner: type, path: Path) -> Source | None:
    known = {field.name for field in fields(owner)}
    return Source(kind, _path(path[0], path[1:])) if path[0] in known else None


def _path(name: str, rest: Path) -> str:
    return name + "".join(f"[{part}]" for part in rest)
