"""The engine: puts the parts of the core together and runs them.

It is assembled once, by the daemon. No part reaches into another through it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

import trio

from noded.config import Config
from noded.engine.checkpoints import Checkpoints
from noded.engine.containers import Containers
from noded.engine.events import Events
from noded.engine.explain import Explain
from noded.engine.images import Images
from noded.engine.metrics_node import NodeMetrics
from noded.engine.node import Node
from noded.engine.parts.accounts import Accounts, open_accounts
from noded.engine.parts.directories import make_directories
from noded.engine.parts.extensions import Extensions, open_extensions
from noded.engine.parts.ground import Decoders, Ground, lay_ground
from noded.engine.parts.image_store import ImageStore, open_image_store
from noded.engine.parts.ladders import Ladders, set_up_ladders
from noded.engine.parts.verbs import Verbs, make_verbs
from noded.engine.reload import Reload
from noded.engine.running import RunningContainers
from noded.engine.sandboxes import Sandboxes
from noded.engine.seccomp_recordings import SeccompRecordings
from noded.engine.settle import settle
from noded.engine.stats import Stats
from noded.engine.streams import Streams
from noded.engine.timelines import Timelines
from noded.engine.upkeep import collect_networks, free_owed_bytes, tell_findings
from noded.host.lock import lock
from noded.host.orphans import reap_orphans
from noded.images import crash_mark
from noded.images.unpack.client import Unpacker
from noded.model.host import HostFacts
from noded.model.paths import Layout
from noded.store.database import Database
from noded.store.schema import MIGRATIONS
from noded.tracing.recorder import Recorder

__all__ = ["Decoders", "Engine", "open_engine"]


@dataclass(frozen=True, slots=True)
class Engine:
    """The doors of the core that the edge uses."""

    sandboxes: Sandboxes
    containers: Containers
    running: RunningContainers
    checkpoints: Checkpoints
    recordings: SeccompRecordings
    explain: Explain
    images: Images
    node: Node
    stats: Stats
    events: Events
    metrics: NodeMetrics
    streams: Streams
    reload: Reload
    recorder: Recorder
    timelines: Timelines


@dataclass(frozen=True, slots=True)
class _Parts:
    """All groups of parts."""

    ground: Ground
    unpacker: Unpacker
    images: ImageStore
    extensions: Extensions
    ladders: Ladders
    verbs: Verbs
    accounts: Accounts


@asynccontextmanager
async def open_engine(
    config: Config,
    facts: HostFacts,
    decoders: Decoders,
    ready: trio.Event,
    connection: sqlite3.Connection | None,
) -> AsyncIterator[Engine]:
    """Open the stores, load what is known, start the services.

    Args:
        connection: to the database, if it is open already; closed here.

    On entry lists can be served from the last known state; `ready` is set once the node has been
    reconciled and changes may be asked for. On exit everything that is process-scoped is closed;
    pods keep running.

    Raises: NodedError when a store or the configuration cannot be used, with what to do about it.
    """
    layout = Layout(config.root, config.state, images=config.images.root)
    await trio.to_thread.run_sync(make_directories, layout)
    # The daemon has locked its root before.
    apart = not await trio.to_thread.run_sync(layout.image_root.samefile, layout.root)
    with lock(layout.image_root / "noded.lock") if apart else nullcontext():
        crashed = await trio.to_thread.run_sync(crash_mark.begin, layout.crash_mark, facts.boot_id)
        database = await Database.open(layout.database, MIGRATIONS, connection)
        try:
            # Started by the first layer: most restarts of a daemon pull nothing.
            async with (
                aclosing(
                    Unpacker(config.images.unpack_workers, stalled_seconds=config.stalled_seconds)
                ) as unpacker,
                trio.open_nursery() as services,
            ):
                ground = lay_ground(config, layout, facts, services, database, decoders)
                parts = await _make(ground, database, unpacker)
                _connect(parts)
                await _load(parts)
                await _run_services(parts, crashed, ready)
                yield _doors(parts)
                services.cancel_scope.cancel()
            await trio.to_thread.run_sync(crash_mark.end, layout.crash_mark)
        finally:
            await database.close()


async def _make(ground: Ground, database: Database, unpacker: Unpacker) -> _Parts:
    images = await open_image_store(ground, database, unpacker)
    extensions = await open_extensions(ground)
    ladders = await set_up_ladders(ground, images, extensions, unpacker)
    verbs = make_verbs(ground, images, extensions.handlers, ladders)
    accounts = open_accounts(ground, images, extensions.handlers, ladders, verbs)
    return _Parts(ground, unpacker, images, extensions, ladders, verbs, accounts)


def _connect(parts: _Parts) -> None:
    """Give parts what they need of those that were made after them."""
    images, ladders, verbs = parts.images, parts.ladders, parts.verbs
    observers, metrics = parts.extensions.observers, parts.accounts.metrics
    images.library.set_in_use(verbs.containers.layers_in_use)
    images.artifacts.set_in_use(verbs.containers.seccomp_in_use)
    ladders.nri.use(verbs.running.apply_limits, verbs.containers.stop, ladders.sandboxes.namespace_paths)
    ladders.notifier.kill = verbs.containers.kill
    parts.ground.events.observe(observers.tell)
    ladders.notifier.tell = observers.blocked
    ladders.notifier.observe, ladders.nri.observe = metrics.blocked_call, metrics.nri
    ladders.network.observe, images.puller.observe = metrics.cni, metrics.pull


async def _load(parts: _Parts) -> None:
    """Fill memory from the database."""
    await parts.images.library.load()
    await parts.verbs.recovery.load()
    await parts.images.artifacts.load()


async def _run_services(parts: _Parts, crashed: bool, ready: trio.Event) -> None:
    """Start what runs as long as the engine, and what makes it ready; return when the former serve."""
    ground, images, extensions, accounts = parts.ground, parts.images, parts.extensions, parts.accounts
    network, nri = parts.ladders.network, parts.ladders.nri
    services, period_seconds = ground.services, ground.config.network.gc_period_seconds
    await services.start(accounts.recorder.run)
    if accounts.exporter is not None:
        services.start_soon(accounts.exporter.run)
    services.start_soon(reap_orphans)
    services.start_soon(parts.unpacker.end_idle)
    services.start_soon(extensions.observers.run)
    services.start_soon(tell_findings, extensions.hooks, extensions.host)
    await services.start(network.run)
    await services.start(images.puller.run)
    services.start_soon(free_owed_bytes, images.library)
    services.start_soon(collect_networks, network, ground.registry, period_seconds, ready)
    services.start_soon(
        partial(
            settle,
            handlers=extensions.handlers,
            recovery=parts.verbs.recovery,
            serve_nri=partial(services.start, nri.run) if nri.enabled else None,
            library=images.library,
            stores=images.stores,
            repairer=images.repairer,
            crashed=crashed,
            ready=ready,
        )
    )


def _doors(parts: _Parts) -> Engine:
    ground, images, extensions = parts.ground, parts.images, parts.extensions
    ladders, verbs, accounts = parts.ladders, parts.verbs, parts.accounts
    config, layout, registry = ground.config, ground.layout, ground.registry
    handlers = extensions.handlers
    explain = Explain(
        config=config,
        layout=layout,
        registry=registry,
        images=images.library,
        spec=ladders.spec,
        profiles=ladders.profiles,
        nri=ladders.nri,
    )
    node = Node(
        config=config,
        facts=ground.facts,
        handlers=handlers,
        hooks=extensions.hooks,
        network=ladders.network,
        sandboxes=verbs.sandboxes,
        debts=ground.debts,
        nri=ladders.nri,
        image_stores=images.stores,
    )
    streams = Streams(
        layout=layout,
        registry=registry,
        handlers=handlers,
        ladder=ladders.containers,
        nursery=ground.services,
    )
    reload = Reload(
        plugins=extensions.plugins,
        host=extensions.host,
        handlers=handlers,
        registry=registry,
        sandboxes=ladders.sandboxes,
    )
    return Engine(
        sandboxes=verbs.sandboxes,
        containers=verbs.containers,
        running=verbs.running,
        checkpoints=verbs.checkpoints,
        recordings=SeccompRecordings(registry, handlers, ladders.notifier),
        explain=explain,
        images=Images(images.library, images.puller, images.repairer, images.stores, images.admission),
        node=node,
        stats=accounts.stats,
        events=ground.events,
        metrics=accounts.metrics,
        streams=streams,
        reload=reload,
        recorder=accounts.recorder,
        timelines=accounts.timelines,
    )
