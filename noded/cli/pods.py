"""`noded pods` and `noded ps`: pod sandboxes and containers."""

from __future__ import annotations

import argparse
import time

from noded.cli.client import Daemon, query_seconds, wait_for
from noded.cli.documents.pods import Container, Pod
from noded.cli.quantities import age, short_id
from noded.cli.table import print_json, print_table
from noded.proto.runtime import v1 as cri


def pods(arguments: argparse.Namespace) -> int:
    """Print the pod sandboxes, newest first."""
    found = [_pod(item) for item in wait_for(_list_pods(arguments)).items]
    found = [pod for pod in found if not arguments.namespace or pod["namespace"] == arguments.namespace]
    found.sort(key=lambda pod: -pod["created_at_ns"])
    if arguments.json:
        print_json(found)
    elif arguments.quiet:
        print(*(pod["id"] for pod in found), sep="\n", end="\n" if found else "")
    else:
        now_ns = time.time_ns()
        print_table(
            ("POD ID", "CREATED", "STATE", "NAMESPACE", "NAME", "ATTEMPT", "RUNTIME"),
            [
                (
                    short_id(pod["id"]),
                    age(pod["created_at_ns"], now_ns),
                    pod["state"],
                    pod["namespace"],
                    pod["name"],
                    str(pod["attempt"]),
                    pod["runtime_handler"] or "(default)",
                )
                for pod in found
            ],
        )
    return 0


async def _list_pods(arguments: argparse.Namespace) -> cri.ListPodSandboxResponse:
    async with Daemon(arguments.address) as daemon:
        request = cri.ListPodSandboxRequest()
        return await daemon.runtime(
            "ListPodSandbox", request, cri.ListPodSandboxResponse, query_seconds(arguments.timeout)
        )


def containers(arguments: argparse.Namespace) -> int:
    """Print the containers, newest first; only running ones unless --all."""
    reply, sandboxes = wait_for(_list_containers(arguments))
    names = {item.id: item.metadata for item in sandboxes.items}
    found = [
        _container(item, names.get(item.pod_sandbox_id))
        for item in reply.containers
        if (arguments.all or item.state == cri.ContainerState.CONTAINER_RUNNING)
        and item.pod_sandbox_id.startswith(arguments.pod)
    ]
    found.sort(key=lambda container: -container["created_at_ns"])
    if arguments.json:
        print_json(found)
    elif arguments.quiet:
        print(*(container["id"] for container in found), sep="\n", end="\n" if found else "")
    else:
        now_ns = time.time_ns()
        print_table(
            ("CONTAINER", "IMAGE", "CREATED", "STATE", "NAME", "ATTEMPT", "POD ID", "POD"),
            [
                (
                    short_id(container["id"]),
                    container["image"],
                    age(container["created_at_ns"], now_ns),
                    container["state"],
                    container["name"],
                    str(container["attempt"]),
                    short_id(container["pod_id"]),
                    container["pod"],
                )
                for container in found
            ],
        )
    return 0


async def _list_containers(
    arguments: argparse.Namespace,
) -> tuple[cri.ListContainersResponse, cri.ListPodSandboxResponse]:
    timeout = query_seconds(arguments.timeout)
    async with Daemon(arguments.address) as daemon:
        listed = await daemon.runtime(
            "ListContainers", cri.ListContainersRequest(), cri.ListContainersResponse, timeout
        )
        sandboxes = await daemon.runtime(
            "ListPodSandbox", cri.ListPodSandboxRequest(), cri.ListPodSandboxResponse, timeout
        )
        return listed, sandboxes


def _pod(item: cri.PodSandbox) -> Pod:
    metadata = item.metadata or cri.PodSandboxMetadata()
    return {
        "id": item.id,
        "name": metadata.name,
        "namespace": metadata.namespace,
        "uid": metadata.uid,
        "attempt": metadata.attempt,
        "state": state_name(item.state),
        "created_at_ns": item.created_at,
        "runtime_handler": item.runtime_handler,
        "labels": dict(item.labels),
        "annotations": dict(item.annotations),
    }


def _container(item: cri.Container, pod: cri.PodSandboxMetadata | None) -> Container:
    metadata = item.metadata or cri.ContainerMetadata()
    image = item.image or cri.ImageSpec()
    return {
        "id": item.id,
        "name": metadata.name,
        "attempt": metadata.attempt,
        "pod_id": item.pod_sandbox_id,
        "pod": f"{pod.namespace}/{pod.name}" if pod else "",
        "state": state_name(item.state),
        "image": image.user_specified_image or image.image,
        "image_id": item.image_id or item.image_ref,
        "created_at_ns": item.created_at,
        "labels": dict(item.labels),
        "annotations": dict(item.annotations),
    }


def state_name(state: cri.PodSandboxState | cri.ContainerState) -> str:
    """`running` for CONTAINER_RUNNING; a state that this version does not know is its number."""
    name = state.name
    return name.partition("_")[2].lower() if name else str(int(state))
