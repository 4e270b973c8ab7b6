"""`noded inspect`: everything about one pod, container or image: its record, and what is so now."""

from __future__ import annotations

import argparse
import json
from collections.abc import Awaitable, Callable
from typing import Any

from noded.cli import find
from noded.cli.client import CallFailed, Daemon, query_seconds, wait_for
from noded.cli.documents.pods import Inspected, InspectedContainer, InspectedImage, InspectedPod, Usage
from noded.cli.stats import describe
from noded.cli.table import print_json
from noded.errors import NotFound
from noded.proto.noded.admin import v1 as admin
from noded.proto.runtime import v1 as cri


def inspect(arguments: argparse.Namespace) -> int:
    """Print one document. Without --type the name is looked for among containers, pods, then images."""
    print_json(wait_for(_inspect(arguments)))
    return 0


async def _inspect(arguments: argparse.Namespace) -> Inspected:
    kinds: dict[str, Callable[[Daemon, str, float], Awaitable[Inspected]]] = {
        "container": _container,
        "pod": _pod,
        "image": _image,
    }
    wanted = [arguments.type] if arguments.type else list(kinds)
    async with Daemon(arguments.address) as daemon:
        for kind in wanted:
            try:
                return await kinds[kind](daemon, arguments.object, query_seconds(arguments.timeout))
            except (NotFound, CallFailed) as error:
                if isinstance(error, CallFailed) and error.status.name != "NOT_FOUND":
                    raise
    raise NotFound(f"no {' or '.join(wanted)} {arguments.object}")


async def _container(daemon: Daemon, name: str, timeout: float) -> InspectedContainer:
    identifier = await find.container(daemon, name, timeout)
    reply = await daemon.runtime(
        "ContainerStatus",
        cri.ContainerStatusRequest(container_id=identifier, verbose=True),
        cri.ContainerStatusResponse,
        timeout,
    )
    return {
        "type": "container",
        "status": reply.status.to_dict() if reply.status else {},
        "info": _parsed(reply.info),
        "stats": await _stats(daemon, identifier, timeout),
    }


async def _pod(daemon: Daemon, name: str, timeout: float) -> InspectedPod:
    identifier = await find.pod(daemon, name, timeout)
    reply = await daemon.runtime(
        "PodSandboxStatus",
        cri.PodSandboxStatusRequest(pod_sandbox_id=identifier, verbose=True),
        cri.PodSandboxStatusResponse,
        timeout,
    )
    inside = [each for each in await find.containers(daemon, timeout) if each.pod_sandbox_id == identifier]
    return {
        "type": "pod",
        "status": reply.status.to_dict() if reply.status else {},
        "info": _parsed(reply.info),
        "containers": [each.to_dict() for each in inside],
        "stats": [
            await _stats(daemon, each.id, timeout)
            for each in inside
            if each.state == cri.ContainerState.CONTAINER_RUNNING
        ],
    }


async def _image(daemon: Daemon, name: str, timeout: float) -> InspectedImage:
    request = admin.InspectImageRequest(reference=name)
    reply = await daemon.admin("InspectImage", request, admin.InspectImageResponse, timeout)
    details = json.loads(reply.json)
    listed = await find.containers(daemon, timeout)
    used = [each.id for each in listed if details["id"] in (each.image_id, each.image_ref)]
    return {"type": "image", "image": details, "used_by_containers": used}


async def _stats(daemon: Daemon, identifier: str, timeout: float) -> Usage | None:
    """What it uses now; None for a container that does not run."""
    request = cri.ContainerStatsRequest(container_id=identifier)
    try:
        reply = await daemon.runtime("ContainerStats", request, cri.ContainerStatsResponse, timeout)
    except CallFailed:
        return None
    return describe(reply.stats, "") if reply.stats else None


def _parsed(info: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, text in info.items():
        try:
            found[key] = json.loads(text)
        except ValueError:
            found[key] = text
    return found
