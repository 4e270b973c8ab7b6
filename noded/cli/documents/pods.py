"""Pods and containers."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

from noded.cli.documents.images import ImageInspected


class Pod(TypedDict):
    """One pod sandbox."""

    id: str  # of the sandbox
    name: str  # of the pod
    namespace: str  # of Kubernetes
    uid: str  # of the pod
    attempt: int  # how often kubelet has made a sandbox for this pod anew
    state: str  # ready or notready
    created_at_ns: int  # nanoseconds since the epoch
    runtime_handler: str  # empty for the default
    labels: dict[str, str]  # as kubelet gave them
    annotations: dict[str, str]  # as kubelet gave them


Pods = list[Pod]


class Container(TypedDict):
    """One container."""

    id: str  # of the container
    name: str  # in its pod
    attempt: int  # how often kubelet has made it anew
    pod_id: str  # id of its pod sandbox
    pod: str  # NAMESPACE/NAME
    state: str  # created, running, exited or unknown
    image: str  # as the pod names it
    image_id: str  # digest of its configuration
    created_at_ns: int  # nanoseconds since the epoch
    labels: dict[str, str]  # as kubelet gave them
    annotations: dict[str, str]  # as kubelet gave them


Containers = list[Container]


class Usage(TypedDict):
    """What one container uses."""

    id: str  # of the container
    name: str  # of the container
    pod: str  # NAMESPACE/NAME
    cpu_nanocores: int | None  # use of CPU now, 10^9 for one whole CPU; null while not known
    cpu_seconds: float | None  # CPU time since its start
    memory_working_set_bytes: int | None  # what it holds
    memory_available_bytes: int | None  # what its limit leaves
    writable_bytes: int | None  # of its writable layer
    writable_inodes: int | None  # of its writable layer


Usages = list[Usage]


class Event(TypedDict):
    """What has happened to a container or pod; one line each."""

    at_ns: int  # nanoseconds since the epoch
    event: str  # created, started, stopped, deleted
    kind: Literal["pod", "container"]  # whose id it is
    id: str  # of the pod sandbox or container
    container: str  # name of the container; empty for a pod
    pod_id: str  # id of the pod sandbox
    pod: str  # NAMESPACE/NAME
    exit_code: int | None  # of a stopped container, else null


class LogLine(TypedDict):
    """One line of a container's log, or a part of a long one; one line each."""

    time: str  # RFC 3339 with nanoseconds
    stream: Literal["stdout", "stderr"]  # where the container wrote it
    partial: bool  # whether the line goes on in the next one of this stream
    text: str  # without the newline; bytes that are no UTF-8 are replaced


class InspectedContainer(TypedDict):
    """Everything about a container."""

    type: Literal["container"]  # what it is
    status: dict[str, Any]  # ContainerStatus of CRI, as its JSON
    info: dict[str, Any]  # noded's own record of it
    stats: Usage | None  # null for one that does not run


class InspectedPod(TypedDict):
    """Everything about a pod."""

    type: Literal["pod"]  # what it is
    status: dict[str, Any]  # PodSandboxStatus of CRI, as its JSON
    info: dict[str, Any]  # noded's own record of it
    containers: list[dict[str, Any]]  # Container of CRI, as its JSON
    stats: list[Usage | None]  # of those that run


class InspectedImage(TypedDict):
    """Everything about an image."""

    type: Literal["image"]  # what it is
    image: ImageInspected  # as `noded images inspect` has it
    used_by_containers: list[str]  # their ids


Inspected = InspectedContainer | InspectedPod | InspectedImage


class Origin(TypedDict):
    """What decides a field."""

    kind: str  # request, image, config, host, default, ...
    name: str  # such as the field of the request, or the key of the configuration
    note: NotRequired[str]  # more of it


class ExplainedField(TypedDict):
    """One field of an OCI spec."""

    name: str  # its path
    value: Any  # as it is in the spec
    origin: Origin  # what decides it
    also: list[Origin]  # what else has a part in it
    unless: list[Origin]  # what would change it if it were there


class PeerDifference(TypedDict):
    """One field in which the spec differs from that of another runtime."""

    name: str  # its path
    noded: Any  # here; null where it is missing
    peer: Any  # there; null where it is missing
    why: str  # who decided the value here; empty where it is missing
    reason: NotRequired[str]  # why noded's default is another one


class PeerDifferences(TypedDict):
    """What another runtime makes by default."""

    version: str  # of the other runtime
    source: str  # where it was read
    read_on: str  # when, YYYY-MM-DD
    areas: list[str]  # starts of the names that were compared
    differences: list[PeerDifference]  # all of them


class Explained(TypedDict):
    """`noded explain`."""

    schema: int  # another number when a key changes its meaning
    subject: dict[str, str]  # what is explained
    fields: list[ExplainedField]  # of the spec
    absent: list[str]  # names of fields that today's configuration would add
    notes: list[str]  # what the node could not grant, and what could not be looked at
    peers: dict[str, PeerDifferences]  # by name of the other runtime


class SeccompRecording(TypedDict):
    """What one container has called."""

    id: str  # of the container
    container: str  # its name
    attempt: int  # how often kubelet has made it anew
    calls: dict[str, int]  # how often, by name of the system call
    profile: dict[str, Any]  # a seccomp profile that allows them


class SeccompRecorded(TypedDict):
    """`noded seccomp record`."""

    recordings: list[SeccompRecording]  # one for each recorded container
    waiting: list[str]  # names of containers that are recorded from their next start
