"""What is told of the node: statistics, metrics, timelines."""

from __future__ import annotations

from dataclasses import dataclass

from noded.engine.handlers import Handlers
from noded.engine.metrics_node import NodeMetrics
from noded.engine.parts.ground import Ground
from noded.engine.parts.image_store import ImageStore
from noded.engine.parts.ladders import Ladders
from noded.engine.parts.verbs import Verbs
from noded.engine.stats import Stats
from noded.engine.stats_disk import LayerUsage
from noded.engine.timelines import Timelines
from noded.engine.usage import ToldUsage
from noded.host.cgroup_samples import CgroupSampler
from noded.tracing.export import Exporter
from noded.tracing.journal import Journal
from noded.tracing.recorder import Recorder


@dataclass(frozen=True, slots=True)
class Accounts:
    """
    Args:
        exporter: sends sampled calls to a collector, None without one.
    """

    stats: Stats
    metrics: NodeMetrics
    recorder: Recorder
    exporter: Exporter | None
    timelines: Timelines


def open_accounts(
    ground: Ground, images: ImageStore, handlers: Handlers, ladders: Ladders, verbs: Verbs
) -> Accounts:
    """Make them; the recorder and the exporter are still to be run."""
    tracing = ground.config.tracing
    journal = Journal(ground.layout.timelines)
    exporter = Exporter(tracing.endpoint) if tracing.endpoint else None
    recorder = Recorder(journal, exporter, tracing.sampling_rate_per_million)
    metrics = NodeMetrics(
        verbs.sandboxes,
        verbs.containers,
        images.puller,
        ground.events,
        lambda: len(ladders.nri.report()),
        ground.debts.listed,
        recorder,
        exporter,
    )
    stats = Stats(
        told=ToldUsage(handlers, ladders.containers, ground.services),
        registry=ground.registry,
        cgroups=ground.cgroups,
        sampler=CgroupSampler(ground.facts.cgroup_mode),
        disk=LayerUsage(ground.layout, ground.services),
        layout=ground.layout,
    )
    return Accounts(stats, metrics, recorder, exporter, Timelines(journal, recorder))
