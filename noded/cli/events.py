"""`noded events`: what happens to containers and pods, as it happens."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import datetime

from noded.cli.client import Daemon, wait_for
from noded.cli.documents.pods import Event
from noded.cli.quantities import short_id
from noded.cli.table import printable
from noded.proto.runtime import v1 as cri


def events(arguments: argparse.Namespace) -> int:
    """Print events until Ctrl-C: a line of text each on a terminal, else a line of JSON."""
    wait_for(_follow(arguments, as_json=arguments.json or not sys.stdout.isatty()))
    return 0


async def _follow(arguments: argparse.Namespace, *, as_json: bool) -> None:
    async with Daemon(arguments.address) as daemon:
        async for event in daemon.runtime_stream(
            "GetContainerEvents", cri.GetEventsRequest(), cri.ContainerEventResponse
        ):
            said = describe(event)
            if arguments.pod and not _is_of(said, arguments.pod):
                continue
            print(json.dumps(said) if as_json else _line(said), flush=True)


def describe(event: cri.ContainerEventResponse) -> Event:
    """One event as it is printed. Pure."""
    pod = event.pod_sandbox_status
    metadata = pod.metadata if pod else None
    container = next((each for each in event.containers_statuses if each.id == event.container_id), None)
    name = container.metadata.name if container and container.metadata else ""
    stopped = event.container_event_type == cri.ContainerEventType.CONTAINER_STOPPED_EVENT
    return {
        "at_ns": event.created_at,
        "event": event.container_event_type.name.removeprefix("CONTAINER_").removesuffix("_EVENT").lower(),
        "kind": "pod" if pod and pod.id == event.container_id else "container",
        "id": event.container_id,
        "container": name,
        "pod_id": pod.id if pod else "",
        "pod": f"{metadata.namespace}/{metadata.name}" if metadata else "",
        "exit_code": container.exit_code if container and stopped else None,
    }


def _is_of(said: Event, pod: str) -> bool:
    return bool(said["pod_id"].startswith(pod)) or pod in (said["pod"], said["pod"].rpartition("/")[2])


def _line(said: Event) -> str:
    at = datetime.fromtimestamp(said["at_ns"] / 1e9).strftime("%H:%M:%S.%f")[:-3]
    code = "" if said["exit_code"] is None else f" exit code {said['exit_code']}"
    name = printable(said["container"] or "(pod)")
    return f"{at}  {said['event']:<8} {short_id(said['id'])}  {printable(said['pod'])} {name}{code}"
