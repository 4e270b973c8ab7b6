"""SELinux contexts of pods and containers, as pure functions.

A context is USER:ROLE:TYPE:LEVEL. The type says what a process may do; the level keeps pods apart: two
categories that no other pod of the node has. What a pod does not name comes from the policy's own
lxc_contexts(5) file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from noded.errors import FailedPrecondition, InvalidArgument, ResourceExhausted
from noded.model.container import ContainerSecurity
from noded.model.pod import NamespaceMode, PodConfig, SELinuxOptions
from noded.spec.namespaces import pid_mode

_UNSEPARATED = "spc_t"  # "super privileged container" of every container policy
_VIRTUAL_MACHINE = "container_kvm_t"
_LOWEST = "s0"
_LEAST_CATEGORIES = 2
_TRIES = 64  # at random, before the first free pair is taken in order
_FIELD = "linux.security_context.selinux_options"
# Also what may stand in a quoted mount option: no quote, no backslash, no space.
_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_LEVEL = re.compile(r"[A-Za-z0-9_.,:-]+")
_LINE = re.compile(r'\s*([A-Za-z_]+)\s*=\s*"?([^"\s]+)"?\s*')


@dataclass(frozen=True, slots=True)
class Context:
    """One context of the kernel."""

    user: str
    role: str
    type: str
    level: str

    def __str__(self) -> str:
        return f"{self.user}:{self.role}:{self.type}:{self.level}"


@dataclass(frozen=True, slots=True)
class Contexts:
    """What the policy gives containers that name nothing.

    Args:
        process: of processes.
        file: of files that a container may write.
        kvm: of the processes around a virtual machine.
    """

    process: Context
    file: Context
    kvm: Context


@dataclass(frozen=True, slots=True)
class Labels:
    """What one container, or the init of a pod, gets; "" = SELinux is not used.

    Args:
        process: of its processes.
        mount: of its root file system, tmpfs and volumes.
        relabel: False = volumes stay as they are, since its processes may use any.
    """

    process: str = ""
    mount: str = ""
    relabel: bool = True


def parse_policy_name(text: str) -> str:
    """SELINUXTYPE of /etc/selinux/config, "targeted" without one. Spec: selinux_config(5)."""
    found = re.findall(r"^\s*SELINUXTYPE\s*=\s*([A-Za-z0-9_.-]+)\s*$", text, re.MULTILINE)
    return found[-1] if found else "targeted"


def parse_contexts(text: str) -> Contexts:
    """Read lxc_contexts: lines NAME = "CONTEXT".

    Raises: InvalidArgument saying what is missing or wrong.
    """
    found = {}
    for line in text.splitlines():
        if match := _LINE.fullmatch(line.partition("#")[0]):
            found[match[1]] = match[2]
    values = {}
    for name in ("process", "file"):
        if name not in found:
            raise InvalidArgument(f"it has no {name!r}")
        values[name] = parse_context(found[name], name)
    kvm = found.get("kvm_process")
    values["kvm"] = (
        parse_context(kvm, "kvm_process") if kvm else replace(values["process"], type=_VIRTUAL_MACHINE)
    )
    return Contexts(**values)


def parse_context(text: str, name: str) -> Context:
    """Split USER:ROLE:TYPE[:LEVEL]; the level may have colons of its own. Raises: InvalidArgument."""
    parts = text.split(":", 3)
    if len(parts) < 3:
        raise InvalidArgument(f"{name} {text!r} is no context USER:ROLE:TYPE:LEVEL")
    context = Context(parts[0], parts[1], parts[2], parts[3] if len(parts) > 3 else _LOWEST)
    _check(SELinuxOptions(context.user, context.role, context.type, context.level), name)
    return context


def pod_level(
    options: SELinuxOptions | None, taken: Collection[str], categories: int, below: Callable[[int], int]
) -> str:
    """The level of a new pod: the one it names, else one with two categories that no other pod has.

    Args:
        taken: levels of the pods that exist.
        categories: how many the policy has, c0 and up.
        below: a random number from 0 to below its argument.

    Raises: InvalidArgument naming the field; ResourceExhausted when every pair is taken.
    """
    if options is not None:
        _check(options, f"config.{_FIELD}")
        if options.level:
            return options.level
    if categories < _LEAST_CATEGORIES:
        raise FailedPrecondition(f"selinux_categories is {categories}: two are the least")
    used = frozenset(taken)
    for _ in range(_TRIES):
        first, second = below(categories), below(categories)
        level = _categories(first, second)
        if first != second and level not in used:
            return level
    for second in range(1, categories):
        for first in range(second):
            if (level := _categories(first, second)) not in used:
                return level
    raise ResourceExhausted(
        f"all pairs of {categories} SELinux categories are taken by pods: raise selinux_categories"
    )


def container_labels(
    contexts: Contexts,
    level: str,
    pod: PodConfig,
    security: ContainerSecurity,
    *,
    host_network_unseparated: bool,
    virtual_machine: bool,
) -> Labels:
    """What a container gets.

    The container's options replace the pod's, as in Kubernetes. One that is privileged or shares the
    node's PID or IPC namespace is not kept apart from anything (type spc_t), unless it names a type. Its
    files have the pod's level all the same: the pod's other containers may use the same volumes.

    Args:
        level: of the pod.
        host_network_unseparated: pods with the node's network are not kept apart either.

    Raises: InvalidArgument naming the field.
    """
    options = security.selinux if _any(security.selinux) else pod.security.selinux
    options = options or SELinuxOptions()
    _check(options, f"config.{_FIELD}")
    kinds = (pid_mode(pod, security.namespaces), security.namespaces.ipc, pod.namespaces.ipc)
    shares = NamespaceMode.NODE in kinds
    return _labels(
        contexts,
        options,
        level,
        unseparated=security.privileged or shares or (host_network_unseparated and pod.host_network),
        virtual_machine=virtual_machine,
    )


def infra_labels(
    contexts: Contexts, level: str, pod: PodConfig, *, host_network_unseparated: bool, virtual_machine: bool
) -> Labels:
    """What the init of a pod gets: as a container without options of its own. Raises: InvalidArgument."""
    own = ContainerSecurity(namespaces=pod.namespaces, privileged=pod.security.privileged)
    return container_labels(
        contexts,
        level,
        pod,
        own,
        host_network_unseparated=host_network_unseparated,
        virtual_machine=virtual_machine,
    )


def _labels(
    contexts: Contexts, options: SELinuxOptions, level: str, *, unseparated: bool, virtual_machine: bool
) -> Labels:
    base = contexts.kvm if virtual_machine else contexts.process
    kind = options.type or (_UNSEPARATED if unseparated else base.type)
    process = Context(
        options.user or base.user,
        options.role or base.role,
        kind,
        options.level or (_LOWEST if unseparated else level),
    )
    file = replace(contexts.file, level=options.level or level)
    if options.user:
        file = replace(file, user=options.user)
    return Labels(str(process), str(file), relabel=options.type != _UNSEPARATED)


def _any(options: SELinuxOptions | None) -> bool:
    return options is not None and options != SELinuxOptions()


def _check(options: SELinuxOptions, field: str) -> None:
    for name in ("user", "role", "type", "level"):
        value: str = getattr(options, name)
        if value and not (_LEVEL if name == "level" else _NAME).fullmatch(value):
            raise InvalidArgument(f"{field}.{name}: {value!r} cannot be part of an SELinux context")


def _categories(first: int, second: int) -> str:
    low, high = sorted((first, second))
    return f"{_LOWEST}:c{low},c{high}"
