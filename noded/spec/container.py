"""The whole spec of a container."""

from __future__ import annotations

from typing import Any

from noded.spec.annotations import container_annotations
from noded.spec.base import with_base
from noded.spec.capabilities import container_capabilities
from noded.spec.devices import container_devices, device_rules
from noded.spec.inputs import Built, ContainerInputs
from noded.spec.lsm import protected_paths
from noded.spec.mounts import container_mounts, rootfs_propagation
from noded.spec.namespaces import container_namespaces, has_uts, id_mappings, user_namespace
from noded.spec.process import container_process
from noded.spec.resources import linux_resources
from noded.spec.seccomp.choice import container_seccomp
from noded.spec.version import oci_version


def container_spec(inputs: ContainerInputs) -> Built:
    """The OCI runtime spec, JSON-ready, and what the node could not grant of it.

    The same inputs give the same bytes. The configuration must have passed
    `noded.spec.validate.validate_container`.

    Raises: InvalidArgument naming a field, FailedPrecondition when the node's mounts cannot give
    the propagation asked for.
    """
    security = inputs.container.security
    userns = user_namespace(inputs.pod) is not None
    capabilities = container_capabilities(
        security,
        inputs.policy.default_capabilities,
        inputs.host.bounding_capabilities,
        user_namespace=userns,
        unknown=inputs.features.unknown_capabilities,
    )
    process = container_process(inputs, capabilities)
    resources = linux_resources(inputs.container.resources, inputs.host, pids_limit=inputs.policy.pids_limit)
    namespaces = container_namespaces(
        inputs.pod, security.namespaces, inputs.namespaces, inputs.host, privileged=inputs.privileged
    )
    spec: dict[str, Any] = {
        "ociVersion": "",
        "process": process.value,
        "root": {"path": inputs.rootfs, "readonly": security.readonly_rootfs},
    }
    if inputs.hostname and has_uts(namespaces):
        spec["hostname"] = inputs.hostname
    spec["mounts"] = container_mounts(inputs)
    spec["annotations"] = container_annotations(inputs)
    linux: dict[str, Any] = {
        **id_mappings(inputs.pod),
        "devices": container_devices(inputs),
        "cgroupsPath": inputs.cgroups_path,
        "resources": {"devices": device_rules(inputs), **resources.value},
        "namespaces": namespaces,
    }
    if inputs.block_io:
        linux["resources"]["blockIO"] = dict(inputs.block_io)
    if inputs.rdt_class:
        linux["intelRdt"] = {"closID": inputs.rdt_class}
    if propagation := rootfs_propagation(inputs):
        linux["rootfsPropagation"] = propagation
    if seccomp := container_seccomp(inputs, frozenset(capabilities.granted)):
        linux["seccomp"] = seccomp
    masked, readonly = protected_paths(security, user_namespace=userns)
    linux["maskedPaths"] = list(masked)
    linux["readonlyPaths"] = list(readonly)
    if inputs.mount_label:
        linux["mountLabel"] = inputs.mount_label
    spec["linux"] = linux
    if inputs.policy.base is not None:
        spec = with_base(spec, inputs.policy.base)
    spec["ociVersion"] = oci_version(spec, inputs.features)
    return Built(spec, (*capabilities.warnings, *process.warnings, *resources.warnings))
