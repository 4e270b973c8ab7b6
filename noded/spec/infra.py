"""The spec of a sandbox's init task.

It exists only where containers share a PID namespace, or where the runtime wants a sandbox
container. It is the namespace's PID 1: it must outlive the containers, reap their orphans, and be
of no use to them: another user, no capability, nothing in its file tree, the same masked paths
(a root process of the pod could otherwise reach an unmasked /proc through /proc/1/root).
"""

from __future__ import annotations

from typing import Any

from noded.spec.annotations import infra_annotations
from noded.spec.inputs import Built, InfraInputs
from noded.spec.lsm import MASKED_PATHS, READONLY_PATHS
from noded.spec.namespaces import has_uts, id_mappings, infra_namespaces, mapped, user_namespace
from noded.spec.process import DEFAULT_PATH
from noded.spec.resources import linux_resources, oom_score_adj, pod_total
from noded.spec.seccomp.choice import runtime_default
from noded.spec.version import oci_version

_USER = 65535  # no account anywhere; what the pause image runs as
_INIT = "/init"
_OOM_SCORE_ADJ = -998  # it holds the pod together: the last to die, as the kubelet asks of pause
_CPU_SHARES = 2  # the least there is; it sleeps


def infra_spec(inputs: InfraInputs) -> Built:
    """The OCI runtime spec, JSON-ready and deterministic, and what the node could not grant of it."""
    userns = user_namespace(inputs.pod)
    user = _USER
    if userns is not None and not (mapped(userns.uids, _USER) and mapped(userns.gids, _USER)):
        user = 0
    score = oom_score_adj(_OOM_SCORE_ADJ, inputs.host)
    process: dict[str, Any] = {
        "terminal": False,
        "user": {"uid": user, "gid": user},
        "args": [_INIT, "-P"],
        "env": [f"PATH={DEFAULT_PATH}"],
        "cwd": "/",
        "capabilities": {"bounding": [], "effective": [], "permitted": []},
        "noNewPrivileges": True,
        **score.value,
    }
    if inputs.process_label:
        process["selinuxLabel"] = inputs.process_label
    namespaces = infra_namespaces(inputs.pod, inputs.namespaces, inputs.host)
    spec: dict[str, Any] = {
        "ociVersion": "",
        "process": process,
        "root": {"path": inputs.rootfs, "readonly": True},
    }
    if inputs.hostname and has_uts(namespaces):
        spec["hostname"] = inputs.hostname
    spec["mounts"] = _mounts(inputs)
    spec["annotations"] = infra_annotations(inputs)
    limits = _limits(inputs)
    linux: dict[str, Any] = {
        **id_mappings(inputs.pod),
        "cgroupsPath": inputs.cgroups_path,
        "resources": {"devices": [{"allow": False, "access": "rwm"}], **limits.value},
        "namespaces": namespaces,
        "seccomp": runtime_default(inputs.host, inputs.policy, ()),
        "maskedPaths": list(MASKED_PATHS),
        "readonlyPaths": list(READONLY_PATHS),
    }
    if inputs.mount_label:
        linux["mountLabel"] = inputs.mount_label
    spec["linux"] = linux
    spec["ociVersion"] = oci_version(spec, inputs.features)
    return Built(spec, (*score.warnings, *limits.warnings))


def _limits(inputs: InfraInputs) -> Built:
    """The least there is for a task that sleeps.

    A runtime that wants a sandbox container of its own runs the pod's containers in its process:
    that gets what the pod has as a whole, with its overhead.
    """
    if not inputs.features.needs_infra:
        cpus = {"cpus": inputs.policy.infra_cpus} if inputs.policy.infra_cpus else {}
        return Built({"cpu": {"shares": _CPU_SHARES, **cpus}}, ())
    return linux_resources(pod_total(inputs.pod.resources, inputs.pod.overhead), inputs.host)


def _mounts(inputs: InfraInputs) -> list[dict[str, Any]]:
    safe = ["nosuid", "noexec", "nodev"]
    return [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": safe},
        {
            "destination": "/dev",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "noexec", "strictatime", "mode=755", "size=64k"],
        },
        {
            "destination": _INIT,
            "type": "bind",
            "source": inputs.init,
            "options": ["bind", "rprivate", "ro", "nosuid", "nodev"],
        },
    ]
