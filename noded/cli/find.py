"""Containers and pods by what a person types: an id, the start of one, or a name."""

from __future__ import annotations

from noded.cli.client import QUERY_SECONDS, Daemon
from noded.errors import InvalidArgument, NotFound
from noded.proto.runtime import v1 as cri


def choose(wanted: str, candidates: dict[str, str], noun: str) -> str:
    """The id that is meant: an exact id or name first, else the only id that begins so. Pure.

    Args:
        candidates: names by id.

    Raises: NotFound; InvalidArgument when several fit.
    """
    if wanted in candidates:
        return wanted
    named = [id_ for id_, name in candidates.items() if wanted in (name, name.rpartition("/")[2])]
    begun = [id_ for id_ in candidates if wanted and id_.startswith(wanted)]
    found = named or begun
    if len(found) > 1:
        how = "the name" if named else "the start of the id"
        raise InvalidArgument(f"{wanted} is {how} of {len(found)} {noun}s: give more of the id")
    if not found:
        raise NotFound(f"no {noun} {wanted}")
    return found[0]


async def containers(daemon: Daemon, timeout: float = QUERY_SECONDS) -> list[cri.Container]:
    """All containers."""
    reply = await daemon.runtime(
        "ListContainers", cri.ListContainersRequest(), cri.ListContainersResponse, timeout
    )
    return reply.containers


async def pods(daemon: Daemon, timeout: float = QUERY_SECONDS) -> list[cri.PodSandbox]:
    """All pod sandboxes."""
    reply = await daemon.runtime(
        "ListPodSandbox", cri.ListPodSandboxRequest(), cri.ListPodSandboxResponse, timeout
    )
    return reply.items


async def container(daemon: Daemon, wanted: str, timeout: float = QUERY_SECONDS) -> str:
    """The id of a container; of several with a name, a running one is meant."""
    listed = await containers(daemon, timeout)
    running = {
        each.id: each.metadata.name if each.metadata else ""
        for each in listed
        if each.state == cri.ContainerState.CONTAINER_RUNNING
    }
    every = {each.id: each.metadata.name if each.metadata else "" for each in listed}
    try:
        return choose(wanted, running, "container")
    except NotFound:
        return choose(wanted, every, "container")


async def pod(daemon: Daemon, wanted: str, timeout: float = QUERY_SECONDS) -> str:
    """The id of a pod sandbox, by id or `[NAMESPACE/]NAME`."""
    listed = await pods(daemon, timeout)
    names = {
        each.id: f"{each.metadata.namespace}/{each.metadata.name}" if each.metadata else "" for each in listed
    }
    return choose(wanted, names, "pod")
