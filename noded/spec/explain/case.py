"""What a spec is built from, complete enough to be changed in one place and built again."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from noded.config import WorkloadConfig
from noded.spec.container import container_spec
from noded.spec.granted import granted
from noded.spec.infra import infra_spec
from noded.spec.inputs import ContainerInputs, InfraInputs
from noded.spec.user import resolve_user


@dataclass(frozen=True, slots=True)
class Case:
    """The inputs of one spec.

    Args:
        inputs: as the engine collects them; `container` and `policy` are still without what the pod's
            annotations ask for.
        passwd, group: the image's databases, from which the user is found anew; None = `inputs.user` holds.
        allowed_devices: host paths that an annotation may name.
        shared_cpuset: the node's shared CPUs.
        workloads: the kinds of pods that the configuration defines.
        handler: name of the runtime handler, for the names of its configuration keys.
    """

    inputs: ContainerInputs | InfraInputs
    passwd: str | None = None
    group: str | None = None
    allowed_devices: tuple[str, ...] = ()
    handler: str = "HANDLER"
    workloads: Mapping[str, WorkloadConfig] = field(default_factory=dict)
    shared_cpuset: str = ""


def build(case: Case) -> dict[str, Any]:
    """The spec before devices, hooks and edits of others. Raises: as `container_spec`."""
    inputs = case.inputs
    if isinstance(inputs, InfraInputs):
        return infra_spec(inputs).value
    container, security = inputs.container, inputs.container.security
    if case.passwd is not None and case.group is not None:
        user = resolve_user(case.passwd, case.group, inputs.image.user, security)
        inputs = replace(inputs, user=user)
    given = granted(
        inputs.pod.annotations,
        container,
        inputs.policy,
        inputs.host,
        workloads=case.workloads,
        allowed_devices=case.allowed_devices,
        shared_cpuset=case.shared_cpuset,
    )
    return container_spec(replace(inputs, container=given.container, policy=given.policy)).value


Derive = Callable[[Any], Any]

# Inputs that the engine derives from others by a rule: where the rule gives what is there, they follow.
_DERIVED: tuple[tuple[str, Derive], ...] = (
    ("hostname", lambda inputs: inputs.pod.hostname),
    (
        "log_path",
        lambda inputs: (
            posixpath.join(inputs.pod.log_directory, inputs.container.log_path)
            if inputs.container.log_path
            else ""
        ),
    ),
    ("log_directory", lambda inputs: inputs.pod.log_directory),
)


def followers(case: Case) -> dict[str, Derive]:
    """The inputs of this case that follow from others."""
    return {
        name: derive
        for name, derive in _DERIVED
        if hasattr(case.inputs, name)
        and (name != "log_path" or isinstance(case.inputs, ContainerInputs))
        and getattr(case.inputs, name)
        and getattr(case.inputs, name) == derive(case.inputs)
    }


def followed(case: Case, derived: dict[str, Derive]) -> Case:
    """The case with its followers as they must be now."""
    changes = {name: derive(case.inputs) for name, derive in derived.items()}
    changed = {name: value for name, value in changes.items() if getattr(case.inputs, name) != value}
    return replace(case, inputs=replace(case.inputs, **changed)) if changed else case
