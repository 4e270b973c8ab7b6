"""Annotations of a spec: how runtimes, shims and OCI hooks learn which pod a task belongs to.

Both spellings that runtimes read are written: `io.kubernetes.cri.*` (containerd's; gVisor and
Kata group tasks into pods by them) and `io.kubernetes.cri-o.*`. A user's annotations reach the
runtime only if the handler's `allowed_annotations` match: runtimes obey some of them (crun's
`run.oci.*` name programs and files of the host).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from fnmatch import fnmatchcase

from noded.model.container import ContainerConfig
from noded.model.image import ImageConfig
from noded.model.pod import PodConfig
from noded.spec.inputs import ContainerInputs, InfraInputs, SpecPolicy
from noded.spec.pod_features import pod_resources

STOP_SIGNAL = "org.opencontainers.image.stopSignal"  # image-spec, annotations.md

_CRI = "io.kubernetes.cri."
_CRIO = "io.kubernetes.cri-o."
_NEW_KEYS = {
    "PodLinuxOverhead": "pod-linux-overhead.crio.io",
    "PodLinuxResources": "pod-linux-resources.crio.io",
}


def stop_signal(container: ContainerConfig, of_pod: str, image: ImageConfig) -> str:
    """The name of the signal that asks a container to end.

    The client's word, an allowed annotation of the pod (`of_pod`, "" = none), the image's configuration, its
    annotation, SIGTERM.
    """
    of_image = image.stop_signal or image.annotations.get(STOP_SIGNAL, "")
    return container.stop_signal or of_pod or of_image or "SIGTERM"


def container_annotations(inputs: ContainerInputs) -> dict[str, str]:
    """Sorted. Later sources win: the handler's, the pod's and the container's allowed, noded's."""
    container = inputs.container
    image = container.user_specified_image or container.image
    own = _identity(inputs.pod, inputs.sandbox_id, "container") | {
        "io.kubernetes.container.name": container.name,
        f"{_CRI}container-name": container.name,
        f"{_CRI}image-name": image,
        f"{_CRIO}ContainerID": inputs.container_id,
        f"{_CRIO}ContainerName": container.name,
        f"{_CRIO}ImageName": image,
        f"{_CRIO}LogPath": inputs.log_path,
        f"{_CRIO}Stdin": _flag(container.stdin),
        f"{_CRIO}StdinOnce": _flag(container.stdin_once),
        f"{_CRIO}TTY": _flag(container.tty),
    }
    if inputs.stop_signal:
        own[STOP_SIGNAL] = inputs.stop_signal
    users = {**inputs.pod.annotations, **container.annotations}
    return _merged(inputs.policy, users, own)


def infra_annotations(inputs: InfraInputs) -> dict[str, str]:
    """As of a container; and the pod's size, by which runtimes that start a VM size it."""
    own = _identity(inputs.pod, inputs.sandbox_id, "sandbox") | {
        f"{_CRI}sandbox-log-directory": inputs.log_directory or inputs.pod.log_directory,
        f"{_CRIO}ContainerID": inputs.sandbox_id,
        f"{_CRIO}HostName": inputs.hostname,
    }
    resources = inputs.pod.resources
    if resources is not None:
        own |= {
            f"{_CRI}sandbox-cpu-period": str(resources.cpu_period_us),
            f"{_CRI}sandbox-cpu-quota": str(resources.cpu_quota_us),
            f"{_CRI}sandbox-cpu-shares": str(resources.cpu_shares),
            f"{_CRI}sandbox-memory": str(resources.memory_limit_bytes),
        }
    for name, values in pod_resources(inputs.pod).items():
        text = json.dumps(values, separators=(",", ":"))
        own |= {f"{_CRIO}{name}": text, _NEW_KEYS[name]: text}
    return _merged(inputs.policy, inputs.pod.annotations, own)


def allowed(annotations: Mapping[str, str], patterns: tuple[str, ...]) -> dict[str, str]:
    """Those whose key matches a pattern."""
    return {
        key: value
        for key, value in annotations.items()
        if key and any(fnmatchcase(key, pattern) for pattern in patterns)
    }


def _identity(pod: PodConfig, sandbox_id: str, kind: str) -> dict[str, str]:
    key = pod.key
    return {
        "io.kubernetes.pod.name": key.name,
        "io.kubernetes.pod.namespace": key.namespace,
        "io.kubernetes.pod.uid": key.uid,
        f"{_CRI}container-type": kind,
        f"{_CRI}sandbox-id": sandbox_id,
        f"{_CRI}sandbox-name": key.name,
        f"{_CRI}sandbox-namespace": key.namespace,
        f"{_CRI}sandbox-uid": key.uid,
        f"{_CRIO}ContainerType": kind,
        f"{_CRIO}KubeName": key.name,
        f"{_CRIO}Namespace": key.namespace,
        f"{_CRIO}SandboxID": sandbox_id,
        f"{_CRIO}SandboxName": f"k8s_POD_{key.name}_{key.namespace}_{key.uid}_{key.attempt}",
    }


def _merged(policy: SpecPolicy, users: Mapping[str, str], own: dict[str, str]) -> dict[str, str]:
    merged = {**policy.annotations, **allowed(users, policy.allowed_annotations), **own}
    return {key: merged[key] for key in sorted(merged)}


def _flag(value: bool) -> str:
    return "true" if value else "false"
