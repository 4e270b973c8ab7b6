"""What can be asked of sandboxes and containers, and what a start does with those that are there."""

from __future__ import annotations

from dataclasses import dataclass

from noded.engine.checkpoints import Checkpoints
from noded.engine.container_requests import ContainerRequests
from noded.engine.container_starts import ContainerStarts
from noded.engine.container_stops import ContainerStops
from noded.engine.containers import Containers
from noded.engine.handlers import Handlers
from noded.engine.parts.ground import Ground
from noded.engine.parts.image_store import ImageStore
from noded.engine.parts.ladders import Ladders
from noded.engine.recover import Recovery
from noded.engine.running import RunningContainers
from noded.engine.sandboxes import Sandboxes
from noded.engine.thaws import Thaws


@dataclass(frozen=True, slots=True)
class Verbs:
    """
    Args:
        running: what is asked of containers that run.
    """

    sandboxes: Sandboxes
    containers: Containers
    running: RunningContainers
    checkpoints: Checkpoints
    recovery: Recovery


def make_verbs(ground: Ground, images: ImageStore, handlers: Handlers, ladders: Ladders) -> Verbs:
    """Put the ladders behind the methods of the CRI."""
    config, layout, facts = ground.config, ground.layout, ground.facts
    registry, operations, events = ground.registry, ground.operations, ground.events
    ladder, supervisor, nri = ladders.containers, ladders.supervisor, ladders.nri
    requests = ContainerRequests(
        config=config,
        facts=facts,
        registry=registry,
        handlers=handlers,
        cgroups=ground.cgroups,
        images=images.library,
        admission=images.admission,
        notifier=ladders.notifier,
        restores=ladders.restores,
    )
    containers = Containers(
        unclaimed_seconds=config.unclaimed_seconds,
        layout=layout,
        rows=ground.container_rows,
        registry=registry,
        operations=operations,
        handlers=handlers,
        images=images.library,
        requests=requests,
        ladder=ladder,
        starts=ContainerStarts(ladder=ladder, supervisor=supervisor, nri=nri),
        stops=ContainerStops(ladder=ladder, supervisor=supervisor, nri=nri),
        nri=nri,
        notifier=ladders.notifier,
        nursery=ground.services,
        events=events,
        debts=ground.debts,
    )
    thaws = Thaws(ladder, ground.services)
    checkpoints = Checkpoints(
        enabled=config.checkpoint.enable,
        layout=layout,
        registry=registry,
        operations=operations,
        handlers=handlers,
        images=images.library,
        snapshots=images.snapshots,
        ladder=ladder,
        thaws=thaws,
    )
    sandboxes = Sandboxes(
        config=config,
        facts=facts,
        rows=ground.sandbox_rows,
        registry=registry,
        operations=operations,
        handlers=handlers,
        cgroups=ground.cgroups,
        ladder=ladders.sandboxes,
        containers=containers,
        nri=nri,
        selinux=ladders.selinux,
        nursery=ground.services,
        events=events,
        debts=ground.debts,
    )
    recovery = Recovery(
        facts=facts,
        layout=layout,
        sandbox_rows=ground.sandbox_rows,
        container_rows=ground.container_rows,
        registry=registry,
        sandbox_ladder=ladders.sandboxes,
        container_ladder=ladder,
        sandboxes=sandboxes,
        containers=containers,
        supervisor=supervisor,
        checkpoints=checkpoints,
        restores=ladders.restores,
        thaws=thaws,
        nursery=ground.services,
        events=events,
    )
    running = RunningContainers(
        facts=facts,
        cgroups=ground.cgroups,
        registry=registry,
        handlers=handlers,
        ladder=ladder,
        nri=nri,
    )
    return Verbs(sandboxes, containers, running, checkpoints, recovery)
