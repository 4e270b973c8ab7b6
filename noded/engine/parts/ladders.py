"""How sandboxes and containers are brought up and down, and what watches them while they are up."""

from __future__ import annotations

from dataclasses import dataclass

import trio

from noded.engine.bundle import BundleSpec
from noded.engine.container_ladder import ContainerLadder
from noded.engine.cpu_tuning import CpuTunings
from noded.engine.nri import Nri
from noded.engine.parts.extensions import Extensions
from noded.engine.parts.ground import Ground
from noded.engine.parts.image_store import ImageStore
from noded.engine.restores import Restores
from noded.engine.sandbox_ladder import SandboxLadder
from noded.engine.seccomp_notifier import SeccompNotifier
from noded.engine.seccomp_profiles import SeccompProfiles
from noded.engine.selinux import SELinux
from noded.engine.supervise import Supervisor
from noded.host.cpu_tuning import CpuTuner
from noded.images.unpack.client import Unpacker
from noded.network.network import Network


@dataclass(frozen=True, slots=True)
class Ladders:
    """
    Args:
        spec: makes the OCI spec of a container.
        restores: containers that come from a checkpoint.
    """

    network: Network
    nri: Nri
    selinux: SELinux
    notifier: SeccompNotifier
    supervisor: Supervisor
    profiles: SeccompProfiles
    spec: BundleSpec
    restores: Restores
    sandboxes: SandboxLadder
    containers: ContainerLadder


async def set_up_ladders(
    ground: Ground, images: ImageStore, extensions: Extensions, unpacker: Unpacker
) -> Ladders:
    """Make both ladders with all that their rungs use; nothing runs yet."""
    config, layout, facts, handlers = ground.config, ground.layout, ground.facts, extensions.handlers
    network = Network(config.network, layout.root / "network")
    nri = Nri(config.nri, facts, ground.registry, images.library)
    selinux = await trio.to_thread.run_sync(SELinux, config, facts)
    sandboxes = SandboxLadder(
        config=config,
        layout=layout,
        facts=facts,
        rows=ground.sandbox_rows,
        cgroups=ground.cgroups,
        network=network,
        handlers=handlers,
        nri=nri,
        selinux=selinux,
    )
    notifier = SeccompNotifier(layout, ground.cgroups, sandboxes, ground.services)
    supervisor = Supervisor(ground.services, nri, notifier)
    profiles = SeccompProfiles(images.artifacts)
    spec = BundleSpec(
        config=config,
        layout=layout,
        facts=facts,
        handlers=handlers,
        registry=ground.registry,
        sandboxes=sandboxes,
        volumes=images.volumes,
        content=images.content,
        hooks=extensions.hooks,
        profiles=profiles,
        selinux=selinux,
    )
    restores = Restores(
        enabled=config.checkpoint.restore,
        layout=layout,
        images=images.library,
        layers=images.layers,
        unpacker=unpacker,
    )
    containers = ContainerLadder(
        layout=layout,
        rows=ground.container_rows,
        images=images.library,
        snapshots=images.snapshots,
        selinux=selinux,
        container_quota_bytes=config.images.container_quota_bytes,
        volumes=images.volumes,
        spec=spec,
        handlers=handlers,
        sandboxes=sandboxes,
        nri=nri,
        notifier=notifier,
        restores=restores,
        tunings=CpuTunings(handlers, ground.cgroups, CpuTuner()),
        watch=supervisor.watch,
    )
    supervisor.use(containers)
    return Ladders(
        network=network,
        nri=nri,
        selinux=selinux,
        notifier=notifier,
        supervisor=supervisor,
        profiles=profiles,
        spec=spec,
        restores=restores,
        sandboxes=sandboxes,
        containers=containers,
    )
