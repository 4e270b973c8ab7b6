"""The OCI `process` object: what runs, with which environment, identity and rights."""

from __future__ import annotations

import copy
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from noded.errors import InvalidArgument
from noded.model.container import ContainerConfig
from noded.model.cpus import parse_cpus
from noded.model.image import ImageConfig
from noded.spec.capabilities import Capabilities
from noded.spec.inputs import Built, ContainerInputs, ResolvedUser, Rlimit, SpecPolicy
from noded.spec.lsm import container_apparmor
from noded.spec.resources import oom_score_adj
from noded.spec.version import at_least

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_EXEC_AFFINITY_SINCE = "1.2.1"
_TERM = "xterm"
_RLIMITS = frozenset(  # getrlimit(2)
    f"RLIMIT_{name}"
    for name in (
        "AS", "CORE", "CPU", "DATA", "FSIZE", "LOCKS", "MEMLOCK", "MSGQUEUE", "NICE", "NOFILE", "NPROC",
        "RSS", "RTPRIO", "RTTIME", "SIGPENDING", "STACK",
    )
)  # fmt: skip


def container_process(inputs: ContainerInputs, capabilities: Capabilities) -> Built:
    """Build `process` of a container. Raises: InvalidArgument naming the field."""
    container, policy = inputs.container, inputs.policy
    score = oom_score_adj(container.resources.oom_score_adj if container.resources else 0, inputs.host)
    process: dict[str, Any] = {
        "terminal": container.tty,
        "user": _user(inputs.user, policy.umask),
        "args": arguments(container, inputs.image),
        "env": environment(container, inputs.image, policy, hostname=inputs.hostname),
        "cwd": working_directory(container, inputs.image),
        "capabilities": capabilities.to_oci(),
    }
    if policy.rlimits:
        process["rlimits"] = rlimits(policy.rlimits)
    process["noNewPrivileges"] = container.security.no_new_privs
    process |= score.value
    profile = container_apparmor(container.security, inputs.host, policy)
    if profile:
        process["apparmorProfile"] = profile
    if inputs.process_label:
        process["selinuxLabel"] = inputs.process_label
    affinity = _exec_affinity(inputs)
    return Built(process | affinity.value, (*score.warnings, *affinity.warnings))


def _exec_affinity(inputs: ContainerInputs) -> Built:
    """`execCPUAffinity`, where the policy wants one and the container is tied to CPUs."""
    resources = inputs.container.resources
    cpus = inputs.policy.shared_cpus or (resources.cpuset_cpus if resources else "")
    if not inputs.policy.exec_cpu_affinity or not cpus:
        return Built({})
    warnings: tuple[str, ...] = ()
    if not at_least(inputs.features.highest_oci_version, _EXEC_AFFINITY_SINCE):
        warnings = (
            f"exec_cpu_affinity may have no effect: the runtime claims the OCI specification "
            f"{inputs.features.highest_oci_version}, not {_EXEC_AFFINITY_SINCE}",
        )
    first = min(parse_cpus(cpus, "linux.resources.cpuset_cpus"))
    return Built({"execCPUAffinity": {"initial": str(first)}}, warnings)


def exec_process(spec: Mapping[str, Any], command: Sequence[str], *, terminal: bool) -> dict[str, Any]:
    """The process object of an exec in a container with this spec.

    It has the container's user, environment, directory and rights, and nothing else: rights given
    to an exec alone would be a way around the container's own.

    Raises: InvalidArgument for an empty command.
    """
    if not command:
        raise InvalidArgument("cmd: give a command to execute")
    process: dict[str, Any] = copy.deepcopy(dict(spec["process"]))
    process["args"] = _texts(command, "cmd")
    process["terminal"] = terminal
    process.pop("consoleSize", None)
    if terminal and not any(entry.startswith("TERM=") for entry in process["env"]):
        process["env"].append(f"TERM={_TERM}")
    return process


def arguments(container: ContainerConfig, image: ImageConfig) -> list[str]:
    """Merge command lines: `command` replaces ENTRYPOINT and drops CMD, `args` replaces CMD.

    Raises: InvalidArgument when neither the request nor the image names a program.
    """
    if container.command:
        merged = container.command + container.args
    else:
        merged = image.entrypoint + (container.args or image.cmd)
    if not merged or not merged[0]:
        raise InvalidArgument(
            "command: nothing to run, the request has no command and the image neither ENTRYPOINT nor CMD"
        )
    return _texts(merged, "command")


def environment(
    container: ContainerConfig, image: ImageConfig, policy: SpecPolicy, *, hostname: str
) -> list[str]:
    """Variables in order of first appearance; a later source wins: node, image, pod, client.

    Raises: InvalidArgument for a name that no program could read back.
    """
    merged: dict[str, str] = {"PATH": DEFAULT_PATH}
    if container.tty:
        merged["TERM"] = _TERM
    merged.update(policy.environment)
    for entry in image.env:
        name, separator, value = entry.partition("=")
        if name and separator and "\0" not in entry:
            merged[name] = value
    if hostname:
        merged["HOSTNAME"] = hostname
    for name, value in container.envs:
        if not name or "=" in name or "\0" in name:
            raise InvalidArgument(f"envs: {name!r} cannot be the name of an environment variable")
        if "\0" in value:
            raise InvalidArgument(f"envs: the value of {name!r} contains a NUL")
        merged[name] = value
    return [f"{name}={value}" for name, value in merged.items()]


def working_directory(container: ContainerConfig, image: ImageConfig) -> str:
    """The client's directory, the image's, else "/". Raises: InvalidArgument if relative."""
    if container.working_dir:
        if not container.working_dir.startswith("/"):
            raise InvalidArgument(f"working_dir: {container.working_dir!r} must be an absolute path")
        return _texts([container.working_dir], "working_dir")[0]
    # Builders resolve a relative WORKDIR against "/" when there was none before it.
    return posixpath.join("/", image.working_dir)


def rlimits(limits: Iterable[Rlimit]) -> list[dict[str, Any]]:
    """`process.rlimits`, one entry per type (the last wins), sorted."""
    by_type = {limit.type: limit for limit in limits}
    return [
        {"type": name, "soft": by_type[name].soft, "hard": by_type[name].hard} for name in sorted(by_type)
    ]


def parse_rlimits(limits: Mapping[str, str], key: str) -> tuple[Rlimit, ...]:
    """Limits as an administrator writes them: `nofile` -> `SOFT:HARD`, or one number for both; -1 = none.

    Args:
        key: name of the configuration key, for messages.

    Raises: InvalidArgument naming the limit.
    """
    parsed = []
    for name, text in limits.items():
        kind = f"RLIMIT_{name.upper().removeprefix('RLIMIT_')}"
        soft, colon, hard = text.partition(":")
        try:
            values = [int(value) for value in (soft, hard if colon else soft)]
        except ValueError:
            values = []
        if kind not in _RLIMITS or not values or min(values) < -1:
            raise InvalidArgument(
                f'{key}.{name}: {text!r} is no limit, write for example nofile = "1024:4096"'
            )
        unlimited = [2**64 - 1 if value == -1 else value for value in values]
        if unlimited[0] > unlimited[1]:
            raise InvalidArgument(f"{key}.{name}: the soft limit of {text!r} is above the hard one")
        parsed.append(Rlimit(kind, *unlimited))
    return tuple(parsed)


def _user(user: ResolvedUser, umask: int | None) -> dict[str, Any]:
    value: dict[str, Any] = {"uid": user.uid, "gid": user.gid}
    if umask is not None:
        value["umask"] = umask
    if user.additional_gids:
        value["additionalGids"] = list(user.additional_gids)
    return value


def _texts(values: Iterable[str], field: str) -> list[str]:
    texts = list(values)
    for text in texts:
        if "\0" in text:
            raise InvalidArgument(f"{field}: {text!r} contains a NUL")
    return texts
