"""The engine: puts the parts of the core together and runs them.

It is assembled once, by the daemon. No part reaches into another through it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

import structlog
import trio

from noded.config import Config
from noded.engine.backoff import local_delays
from noded.engine.bundle import BundleSpec
from noded.engine.checkpoints import Checkpoints
from noded.engine.container_ladder import ContainerLadder
from noded.engine.container_requests import ContainerRequests
from noded.engine.container_starts import ContainerStarts
from noded.engine.container_stops import ContainerStops
from noded.engine.containers import Containers
from noded.engine.cpu_tuning import CpuTunings
from noded.engine.events import Events
from noded.engine.explain import Explain
from noded.engine.handlers import Handlers
from noded.engine.images import Images
from noded.engine.metrics_node import NodeMetrics
from noded.engine.node import Node
from noded.engine.nri import Nri
from noded.engine.observers import Observers
from noded.engine.operations import Operations
from noded.engine.recover import Recovery
from noded.engine.registry import Registry
from noded.engine.reload import Reload
from noded.engine.restores import Restores
from noded.engine.running import RunningContainers
from noded.engine.sandbox_ladder import SandboxLadder
from noded.engine.sandboxes import Sandboxes
from noded.engine.seccomp_notifier import SeccompNotifier
from noded.engine.seccomp_profiles import SeccompProfiles
from noded.engine.seccomp_recordings import SeccompRecordings
from noded.engine.selinux import SELinux
from noded.engine.stats import Stats
from noded.engine.stats_disk import LayerUsage
from noded.engine.streams import Streams
from noded.engine.supervise import Supervisor
from noded.engine.thaws import Thaws
from noded.engine.timelines import Timelines
from noded.engine.usage import ToldUsage
from noded.host import mounts
from noded.host.cgroup_samples import CgroupSampler
from noded.host.cgroups import Cgroups
from noded.host.cpu_tuning import CpuTuner
from noded.host.lock import lock
from noded.host.orphans import reap_orphans
from noded.images import crash_mark
from noded.images.content import ContentStore
from noded.images.decrypt.keys import DecryptionKeys
from noded.images.layers import LayerStore
from noded.images.library import Library
from noded.images.pull import Puller
from noded.images.repair import Repairer
from noded.images.seccomp_artifacts import SeccompArtifacts
from noded.images.snapshots import Snapshots
from noded.images.stores import AdditionalStores, AllLayers
from noded.images.unpack.client import Unpacker
from noded.images.volumes import ImageVolumes
from noded.model.container import ContainerConfig
from noded.model.host import HostFacts
from noded.model.paths import Layout
from noded.model.pod import PodConfig
from noded.model.runtime import RuntimeHost
from noded.network.network import Network
from noded.plugins import Hooks, discover, open_handlers_of
from noded.store.containers import ContainerRows
from noded.store.database import Database
from noded.store.images import ImageRows
from noded.store.sandboxes import SandboxRows
from noded.store.schema import MIGRATIONS
from noded.store.seccomp_artifacts import SeccompArtifactRows
from noded.tracing.export import Exporter
from noded.tracing.journal import Journal
from noded.tracing.recorder import Recorder

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Decoders:
    """How stored CRI requests become values again; the protobuf lives above the engine."""

    pod: Callable[[bytes], PodConfig]
    container: Callable[[bytes], ContainerConfig]


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


@asynccontextmanager
async def open_engine(
    config: Config, facts: HostFacts, decoders: Decoders, ready: trio.Event
) -> AsyncIterator[Engine]:
    """Open the stores, load what is known, start the services.

    On entry lists can be served from the last known state; `ready` is set once the node has been
    reconciled and changes may be asked for. On exit everything that is process-scoped is closed;
    pods keep running.
    """
    layout = Layout(config.root, config.state, images=config.images.root)
    await trio.to_thread.run_sync(_prepare, layout)
    # The daemon has locked its root before.
    apart = not await trio.to_thread.run_sync(layout.image_root.samefile, layout.root)
    with lock(layout.image_root / "noded.lock") if apart else nullcontext():
        async with _open(config, layout, facts, decoders, ready) as engine:
            yield engine


@asynccontextmanager
async def _open(
    config: Config, layout: Layout, facts: HostFacts, decoders: Decoders, ready: trio.Event
) -> AsyncIterator[Engine]:
    crashed = await trio.to_thread.run_sync(crash_mark.begin, layout.crash_mark, facts.boot_id)
    database = await Database.open(layout.database, MIGRATIONS)
    try:
        # Started by the first layer: most restarts of a daemon pull nothing.
        async with (
            aclosing(Unpacker(config.images.unpack_workers)) as unpacker,
            trio.open_nursery() as services,
        ):
            content = ContentStore(layout.content)
            keys = DecryptionKeys(config.images.decryption_keys_path)
            layers = LayerStore(layout.layers, unpacker, keys=keys)
            library = Library(
                content=content,
                layers=layers,
                rows=ImageRows(database),
                layout=layout,
                pinned=config.images.pinned,
                keep_blobs=config.images.keep_blobs,
            )
            stores = AdditionalStores(config.images.additional_stores)
            usable = AllLayers(layers, stores)
            library.set_stores(stores)
            services.start_soon(stores.begin)
            snapshots = Snapshots(layout, usable, config.images.storage_driver, usable.reach)
            await trio.to_thread.run_sync(snapshots.driver.check)
            volumes = ImageVolumes(layout, usable, snapshots.driver.stack, usable.reach)
            puller = Puller(config.images, content, layers, library, keys=keys)
            admission = puller.admission(layout.root / "verdicts")
            artifacts = SeccompArtifacts(SeccompArtifactRows(database), content, puller, library)
            network = Network(config.network, layout.root / "network")
            cgroups = Cgroups(facts.cgroup_mode, facts.cgroup_driver)
            host = RuntimeHost(
                facts=facts,
                layout=layout,
                conmon_path=config.conmon,
                log_level=config.log_level,
                stalled_seconds=config.stalled_seconds,
                log_max_bytes=config.container_log_max_bytes,
            )
            plugins = await trio.to_thread.run_sync(
                discover, config.disabled_plugins, None, config.plugin_order
            )
            opened = await trio.to_thread.run_sync(open_handlers_of, plugins, config, host)
            handlers = Handlers(opened, config.default_runtime, config.workloads)
            hooks = Hooks(plugins)
            observers = Observers(hooks)
            registry = Registry()
            events = Events(registry.views_of)
            events.observe(observers.tell)
            operations = Operations(services)
            nri = Nri(config.nri, facts, registry, library)
            sandbox_rows = SandboxRows(database, decoders.pod)
            container_rows = ContainerRows(database, decoders.container)
            selinux = await trio.to_thread.run_sync(SELinux, config, facts)
            sandbox_ladder = SandboxLadder(
                config=config,
                layout=layout,
                facts=facts,
                rows=sandbox_rows,
                cgroups=cgroups,
                network=network,
                handlers=handlers,
                nri=nri,
                selinux=selinux,
            )
            notifier = SeccompNotifier(layout, cgroups, sandbox_ladder, services)
            notifier.tell = observers.blocked
            supervisor = Supervisor(services, nri, notifier)
            profiles = SeccompProfiles(artifacts)
            spec = BundleSpec(
                config=config,
                layout=layout,
                facts=facts,
                handlers=handlers,
                registry=registry,
                sandboxes=sandbox_ladder,
                volumes=volumes,
                content=content,
                hooks=hooks,
                profiles=profiles,
                selinux=selinux,
            )
            restores = Restores(
                enabled=config.checkpoint.restore,
                layout=layout,
                images=library,
                layers=usable,
                unpacker=unpacker,
            )
            container_ladder = ContainerLadder(
                layout=layout,
                rows=container_rows,
                images=library,
                snapshots=snapshots,
                selinux=selinux,
                container_quota_bytes=config.images.container_quota_bytes,
                volumes=volumes,
                spec=spec,
                handlers=handlers,
                sandboxes=sandbox_ladder,
                nri=nri,
                notifier=notifier,
                restores=restores,
                tunings=CpuTunings(handlers, cgroups, CpuTuner()),
                watch=supervisor.watch,
            )
            supervisor.use(container_ladder)
            requests = ContainerRequests(
                config=config,
                facts=facts,
                registry=registry,
                handlers=handlers,
                cgroups=cgroups,
                images=library,
                admission=admission,
                notifier=notifier,
                restores=restores,
            )
            containers = Containers(
                unclaimed_seconds=config.unclaimed_seconds,
                layout=layout,
                rows=container_rows,
                registry=registry,
                operations=operations,
                handlers=handlers,
                images=library,
                requests=requests,
                ladder=container_ladder,
                starts=ContainerStarts(ladder=container_ladder, supervisor=supervisor, nri=nri),
                stops=ContainerStops(ladder=container_ladder, supervisor=supervisor, nri=nri),
                nri=nri,
                notifier=notifier,
                nursery=services,
                events=events,
            )
            thaws = Thaws(container_ladder, services)
            checkpoints = Checkpoints(
                enabled=config.checkpoint.enable,
                layout=layout,
                registry=registry,
                operations=operations,
                handlers=handlers,
                images=library,
                snapshots=snapshots,
                ladder=container_ladder,
                thaws=thaws,
            )
            notifier.kill = containers.kill
            running = RunningContainers(
                facts=facts,
                cgroups=cgroups,
                registry=registry,
                handlers=handlers,
                ladder=container_ladder,
                nri=nri,
            )
            nri.use(running.apply_limits, containers.stop, sandbox_ladder.namespace_paths)
            sandboxes = Sandboxes(
                config=config,
                facts=facts,
                rows=sandbox_rows,
                registry=registry,
                operations=operations,
                handlers=handlers,
                cgroups=cgroups,
                ladder=sandbox_ladder,
                containers=containers,
                nri=nri,
                selinux=selinux,
                nursery=services,
                events=events,
            )
            recovery = Recovery(
                facts=facts,
                layout=layout,
                sandbox_rows=sandbox_rows,
                container_rows=container_rows,
                registry=registry,
                sandbox_ladder=sandbox_ladder,
                container_ladder=container_ladder,
                sandboxes=sandboxes,
                containers=containers,
                supervisor=supervisor,
                checkpoints=checkpoints,
                restores=restores,
                thaws=thaws,
                nursery=services,
                events=events,
            )
            library.set_in_use(containers.layers_in_use)
            library.set_meanings(puller.names)
            library.set_kept(artifacts.blobs)
            artifacts.set_in_use(containers.seccomp_in_use)
            await library.load()
            await recovery.load()
            await artifacts.load()
            stats = Stats(
                told=ToldUsage(handlers, container_ladder, services),
                registry=registry,
                cgroups=cgroups,
                sampler=CgroupSampler(facts.cgroup_mode),
                disk=LayerUsage(layout, services),
                layout=layout,
            )
            node = Node(
                config=config,
                facts=facts,
                handlers=handlers,
                hooks=hooks,
                network=network,
                sandboxes=sandboxes,
                nri=nri,
                image_stores=stores,
            )
            journal = Journal(layout.timelines)
            exporter = Exporter(config.tracing.endpoint) if config.tracing.endpoint else None
            recorder = Recorder(journal, exporter, config.tracing.sampling_rate_per_million)
            await services.start(recorder.run)
            if exporter is not None:
                services.start_soon(exporter.run)
            services.start_soon(reap_orphans)
            services.start_soon(unpacker.end_idle)
            services.start_soon(observers.run)
            services.start_soon(_diagnose, hooks, host)
            await services.start(network.run)
            await services.start(puller.run)
            repairer = Repairer(library, puller.restore)
            serve_nri = partial(services.start, nri.run) if nri.enabled else None
            services.start_soon(_keep_tidy, library)
            services.start_soon(
                _settle, handlers, recovery, serve_nri, library, stores, repairer, crashed, ready
            )
            services.start_soon(_collect_networks, network, registry, config.network.gc_period_seconds, ready)
            streams = Streams(
                layout=layout,
                registry=registry,
                handlers=handlers,
                ladder=container_ladder,
                nursery=services,
            )
            metrics = NodeMetrics(
                sandboxes, containers, puller, events, lambda: len(nri.report()), recorder, exporter
            )
            network.observe, puller.observe = metrics.cni, metrics.pull
            notifier.observe, nri.observe = metrics.blocked_call, metrics.nri
            yield Engine(
                sandboxes,
                containers,
                running,
                checkpoints,
                SeccompRecordings(registry, handlers, notifier),
                Explain(
                    config=config,
                    layout=layout,
                    registry=registry,
                    images=library,
                    spec=spec,
                    profiles=profiles,
                    nri=nri,
                ),
                Images(library, puller, repairer, stores, admission),
                node,
                stats,
                events,
                metrics,
                streams,
                Reload(
                    plugins=plugins,
                    host=host,
                    handlers=handlers,
                    registry=registry,
                    sandboxes=sandbox_ladder,
                ),
                recorder,
                Timelines(journal, recorder),
            )
            services.cancel_scope.cancel()
        await trio.to_thread.run_sync(crash_mark.end, layout.crash_mark)
    finally:
        await database.close()


async def _settle(
    handlers: Handlers,
    recovery: Recovery,
    serve_nri: Callable[[], Awaitable[None]] | None,
    library: Library,
    stores: AdditionalStores,
    repairer: Repairer,
    crashed: bool,
    ready: trio.Event,
) -> None:
    """Bring memory and node together, then allow changes.

    Args:
        serve_nri: lets NRI plugins in; the installed ones see every change that is asked for.
        crashed: the node lost power, or crashed, while the daemon ran.
    """
    await handlers.probe()
    await recovery.settle()
    if serve_nri is not None:
        await serve_nri()
    await stores.begun()
    ready.set()
    log.info("ready")
    steps: list[Callable[[], Awaitable[object]]] = [library.collect]
    if crashed:
        steps.append(repairer.after_crash)
    for step in (*steps, repairer.repair_all):
        try:
            await step()
        except Exception:  # none of it is worth the daemon: it is tried again, or done by the next start
            log.exception("the image store was not put in order")
    log.info("image store in order")


async def _keep_tidy(library: Library) -> None:
    """Free what a failed deletion left, as soon as that can be done."""
    while True:
        await library.owed.wait()
        for delay in local_delays():
            await trio.sleep(delay)
            try:
                await library.collect()
                break
            except Exception as error:
                log.warning("not all bytes of images are freed yet", error=str(error))


async def _diagnose(hooks: Hooks, host: RuntimeHost) -> None:
    """Log what plugins find missing on this node."""
    for distribution, finding in await hooks.diagnose(host):
        if not finding.ok:
            log.warning(
                "a plugin is not content with this node",
                distribution=distribution,
                subject=finding.subject,
                detail=finding.detail,
            )


async def _collect_networks(
    network: Network, registry: Registry, period_seconds: float, ready: trio.Event
) -> None:
    """Let CNI plugins free what belongs to no sandbox, from time to time (CNI 1.1 GC)."""
    await ready.wait()
    while period_seconds > 0:
        await trio.sleep(period_seconds)
        try:
            await network.gc(one for sandbox in registry.sandboxes() for one in sandbox.record.attachments)
        except Exception as error:
            log.warning("CNI garbage collection failed, tried again later", error=str(error))


def _prepare(layout: Layout) -> None:
    """Make the directories that everything else expects."""
    for directory, mode in (
        (layout.root, 0o700),  # layers hold set-id programs that the host's users must not reach
        (layout.image_root, 0o700),
        (layout.root / "containers", 0o711),
        (layout.checkpoints, 0o700),
        (layout.layers, 0o711),
        (layout.state, 0o711),
        (layout.state / "pods", 0o711),
        (layout.state / "containers", 0o711),
        (layout.exits, 0o700),
        (layout.state / "runtimes", 0o700),
        (layout.netns_dir, 0o755),
    ):
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(mode)
    mounts.ensure_shared_mountpoint(layout.netns_dir)
