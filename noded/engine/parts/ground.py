"""What every part of the engine stands on: facts, records, what is known of them, and where tasks run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import trio

from noded.config import Config
from noded.engine.debts import Debts
from noded.engine.events import Events
from noded.engine.operations import Operations
from noded.engine.registry import Registry
from noded.host.cgroups import Cgroups
from noded.model.container import ContainerConfig
from noded.model.host import HostFacts
from noded.model.paths import Layout
from noded.model.pod import PodConfig
from noded.store.containers import ContainerRows
from noded.store.database import Database
from noded.store.sandboxes import SandboxRows


@dataclass(frozen=True, slots=True)
class Decoders:
    """How stored CRI requests become values again; the protobuf lives above the engine."""

    pod: Callable[[bytes], PodConfig]
    container: Callable[[bytes], ContainerConfig]


@dataclass(frozen=True, slots=True)
class Ground:
    """
    Args:
        services: where what lives as long as the engine runs.
        registry: memory, as the database has it.
    """

    config: Config
    layout: Layout
    facts: HostFacts
    services: trio.Nursery
    cgroups: Cgroups
    sandbox_rows: SandboxRows
    container_rows: ContainerRows
    registry: Registry
    debts: Debts
    events: Events
    operations: Operations


def lay_ground(
    config: Config,
    layout: Layout,
    facts: HostFacts,
    services: trio.Nursery,
    database: Database,
    decoders: Decoders,
) -> Ground:
    """Put the ground together; reads nothing yet."""
    registry = Registry()
    return Ground(
        config=config,
        layout=layout,
        facts=facts,
        services=services,
        cgroups=Cgroups(facts.cgroup_mode, facts.cgroup_driver),
        sandbox_rows=SandboxRows(database, decoders.pod),
        container_rows=ContainerRows(database, decoders.container),
        registry=registry,
        debts=Debts(services, registry, config.network.del_grace_seconds),
        events=Events(registry.views_of),
        operations=Operations(services),
    )
