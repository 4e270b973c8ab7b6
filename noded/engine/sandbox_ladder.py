"""The rungs of a pod sandbox: record, cgroup, files, namespaces, network, runtime, ready.

Every `down` works from the record alone, whatever its `up` reached.
"""

from __future__ import annotations

import shutil
import socket
from pathlib import Path
from typing import Any

import structlog
import trio

from noded.config import Config
from noded.engine.handlers import Handlers
from noded.engine.ladder import Rung
from noded.engine.nri import Nri
from noded.engine.pod_files import PodDirectory, effective_hostname
from noded.engine.sandbox import PodSandbox
from noded.engine.selinux import SELinux
from noded.errors import FailedPrecondition
from noded.host import namespaces, sysctl, userns
from noded.host.cgroup_names import CRIO_PREFIX
from noded.host.cgroups import Cgroups
from noded.model.host import HostFacts
from noded.model.lifecycle import SandboxIntent
from noded.model.network import AttachmentResult
from noded.model.paths import Layout
from noded.model.pod import NamespaceMode, PodConfig
from noded.model.records import addresses
from noded.model.runtime import Runtime, RuntimeFeatures, SandboxRef, SandboxStart
from noded.network.network import Network
from noded.spec.infra import infra_spec
from noded.spec.inputs import InfraInputs, NamespacePaths, SpecPolicy
from noded.spec.pod_features import PodFeatures, pod_features
from noded.spec.selinux import Labels
from noded.spec.sysctls import pod_sysctls
from noded.store.sandboxes import SandboxRows

log = structlog.get_logger(__name__)

# Above the network's own budgets, whose errors name the plugin: it may wait for a CNI GC to end.
_NETWORK_MARGIN_SECONDS = 35.0


class SandboxLadder:
    """Knows how each rung of a sandbox comes up and goes down."""

    def __init__(
        self,
        *,
        config: Config,
        layout: Layout,
        facts: HostFacts,
        rows: SandboxRows,
        cgroups: Cgroups,
        network: Network,
        handlers: Handlers,
        nri: Nri,
        selinux: SELinux,
    ) -> None:
        self._config = config
        self._layout = layout
        self._facts = facts
        self._rows = rows
        self._cgroups = cgroups
        self._network = network
        self._handlers = handlers
        self._nri = nri
        self._selinux = selinux
        self._files = PodDirectory(layout)
        network_config = config.network
        self.rungs: tuple[Rung[PodSandbox], ...] = (
            Rung("record", self._record_up, self._record_down),
            Rung("cgroup", self._cgroup_up, self._cgroup_down),
            Rung("files", self._files_up, self._files_down),
            Rung("namespaces", self._namespaces_up, self._namespaces_down),
            Rung(
                "network",
                self._network_up,
                self._network_down,
                network_config.add_timeout_seconds + _NETWORK_MARGIN_SECONDS,
                network_config.del_timeout_seconds + _NETWORK_MARGIN_SECONDS,
                interruptible=True,  # killing a CNI plugin is safe: DEL follows
            ),
            Rung("runtime", self._runtime_up, self._runtime_down, 120.0, 60.0, interruptible=True),
            Rung("ready", self._ready_up, self._ready_down),
        )

    @property
    def stop_rungs(self) -> tuple[Rung[PodSandbox], ...]:
        """What StopPodSandbox takes down: everything but the record."""
        return self.rungs[1:]

    # record

    async def _record_up(self, sandbox: PodSandbox) -> None:
        await self._rows.insert(sandbox.record)

    async def _record_down(self, sandbox: PodSandbox) -> None:
        await self._rows.delete(sandbox.id)

    # cgroup: one for the pod's monitors, beside those that the runtime makes

    def monitor_cgroup(self, sandbox: PodSandbox) -> str:
        """Cgroup for monitor processes, "" to leave them where they start."""
        if self._config.monitor_cgroup != "pod":
            return self._config.monitor_cgroup
        return self._cgroups.place(self._oci_path(sandbox, f"conmon-{sandbox.id}"))

    def _oci_path(self, sandbox: PodSandbox, name: str) -> str:
        record = sandbox.record
        return self._cgroups.oci_path(record.config.cgroup_parent, name, record.cgroup_prefix)

    async def _cgroup_up(self, sandbox: PodSandbox) -> None:
        if self._config.monitor_cgroup == "pod":
            await trio.to_thread.run_sync(self._cgroups.create, self.monitor_cgroup(sandbox))

    async def _cgroup_down(self, sandbox: PodSandbox) -> None:
        if self._config.monitor_cgroup == "pod":
            await trio.to_thread.run_sync(self._cgroups.remove, self.monitor_cgroup(sandbox))

    # files

    def hostname(self, sandbox: PodSandbox) -> str:
        return effective_hostname(sandbox.record.config, socket.gethostname())

    async def _files_up(self, sandbox: PodSandbox) -> None:
        size = self._features(sandbox).shm_bytes
        labels = self._labels(sandbox)
        await self._selinux.check(labels)
        hostname = self.hostname(sandbox)
        await self._files.make(sandbox.record, hostname, shm_bytes=size, label=labels.mount)

    async def _files_down(self, sandbox: PodSandbox) -> None:
        await self._files.remove(sandbox.id)

    # namespaces

    def pins(self, sandbox_id: str, config: PodConfig) -> dict[str, Path]:
        """The namespaces that the pod owns, by kind, and where they are pinned."""
        options = config.namespaces
        kinds = []
        if options.userns is not None and options.userns.mode is NamespaceMode.POD:
            kinds.append("user")
        if options.network is not NamespaceMode.NODE:
            kinds += ["net", "uts"]
        if options.ipc is not NamespaceMode.NODE:
            kinds.append("ipc")
        return {kind: self._layout.namespace_pin(sandbox_id, kind) for kind in kinds}

    def namespace_paths(self, sandbox: PodSandbox) -> dict[str, str]:
        """`pins` by the names that the OCI specification has for the kinds."""
        pins = self.pins(sandbox.id, sandbox.record.config)
        return {"network" if kind == "net" else kind: str(path) for kind, path in pins.items()}

    async def _namespaces_up(self, sandbox: PodSandbox) -> None:
        config = sandbox.record.config
        pins = self.pins(sandbox.id, config)
        if "user" in pins:
            mapping = config.namespaces.userns
            assert mapping is not None
            await userns.pin_with_user_namespace(pins, self.hostname(sandbox), mapping.uids, mapping.gids)
        elif pins:
            await namespaces.pin_namespaces(pins, self.hostname(sandbox))
        of_handler = self._handlers.settings(sandbox.record.handler).default_sysctls
        sysctls = pod_sysctls(self._config.default_sysctls, of_handler, config)
        if sysctls:
            await trio.to_thread.run_sync(sysctl.apply, pins, sysctls)

    async def _namespaces_down(self, sandbox: PodSandbox) -> None:
        def unpin() -> None:
            for kind in ("uts", "ipc", "net", "user"):
                namespaces.unpin(self._layout.namespace_pin(sandbox.id, kind))

        await trio.to_thread.run_sync(unpin)

    # network

    async def _network_up(self, sandbox: PodSandbox) -> None:
        record = sandbox.record
        if not record.config.host_network:
            netns = self._layout.namespace_pin(sandbox.id, "net")
            parent = record.config.cgroup_parent
            conf_dir = self._handlers.settings(record.handler).cni_conf_dir
            if conf_dir:
                network = await self._network.look(Path(conf_dir))
                attachments = self._network.plan(sandbox.id, netns, record.config, parent, network)
            else:
                attachments = self._network.plan(sandbox.id, netns, record.config, parent)
            await sandbox.commit(attachments=attachments)  # DEL is owed from here on
            results: list[AttachmentResult] = []
            for attachment in attachments:
                results.append(await self._network.add(attachment))
            # Without them a DEL is right, too, as after an ADD that a dying daemon did not see the end of.
            sandbox.commit_later(results=tuple(results))
            if self._nri.enabled:  # plugins are told the addresses before the pod is ready
                await sandbox.commit()
        ips = addresses(sandbox.attachment_results)
        label = self._labels(sandbox).mount
        await self._files.write_hosts(sandbox.record, ips, self.hostname(sandbox), label=label)

    async def _network_down(self, sandbox: PodSandbox) -> None:
        attachments = sandbox.attached
        if not attachments:
            return
        results: tuple[AttachmentResult | None, ...] = sandbox.attachment_results or (None,) * len(
            attachments
        )
        for attachment, result in reversed(list(zip(attachments, results, strict=True))):
            await self._network.delete(attachment, result)
        # What is not recorded is done again: a DEL may be repeated.
        sandbox.commit_later(attachments=(), results=())

    # runtime

    def reference(self, sandbox: PodSandbox) -> SandboxRef:
        """How the driver knows this sandbox."""
        config = sandbox.record.config
        return SandboxRef(
            id=sandbox.id,
            config=config,
            bundle=self._layout.infra_bundle(sandbox.id),
            cgroup=self._oci_path(sandbox, sandbox.id),
        )

    def shares_pids(self, sandbox: PodSandbox) -> bool:
        """Whether the pod's containers share one PID namespace, which an init process holds."""
        return sandbox.record.config.namespaces.pid is NamespaceMode.POD

    def open_runtime(self, sandbox: PodSandbox) -> Runtime:
        """The runtime that this sandbox was made with; after a restart of the daemon, its handler's."""
        if sandbox.made_by is None:
            sandbox.made_by = self._handlers.runtime(sandbox.record.handler)
        return sandbox.made_by

    async def _runtime_up(self, sandbox: PodSandbox) -> None:
        runtime, features = await self._handlers.open(sandbox.record.handler)
        reference = self.reference(sandbox)
        start = SandboxStart(
            ref=reference,
            infra_spec=self._infra_spec(sandbox, reference, features),
            monitor_cgroup=self.monitor_cgroup(sandbox),
            deadline_seconds=self._handlers.create_timeout_seconds(sandbox.record.handler),
        )
        sandbox.made_by = runtime
        sandbox.runtime = await runtime.start_sandbox(start)
        sandbox.pid = await sandbox.runtime.infra_pid() or 0

    def _infra_spec(
        self, sandbox: PodSandbox, reference: SandboxRef, features: RuntimeFeatures
    ) -> dict[str, Any] | None:
        config = sandbox.record.config
        if not (self.shares_pids(sandbox) or features.needs_infra or _shown_to_cadvisor(sandbox)):
            return None
        init = shutil.which(self._config.init)
        if init is None:
            raise FailedPrecondition(
                f"pods that share their PID namespace or that cAdvisor sees need {self._config.init!r}: "
                "install the package catatonit, or set `init` in the configuration"
            )
        rootfs = reference.bundle / "rootfs"
        rootfs.mkdir(parents=True, exist_ok=True)
        pins = {kind: str(path) for kind, path in self.pins(sandbox.id, config).items()}
        labels = self._labels(sandbox, features)
        built = infra_spec(
            InfraInputs(
                pod=config,
                host=self._facts,
                features=features,
                sandbox_id=sandbox.id,
                rootfs=str(rootfs),
                init=init,
                cgroups_path=reference.cgroup,
                policy=self._policy(sandbox),
                namespaces=NamespacePaths(**pins),
                hostname=self.hostname(sandbox),
                log_directory=config.log_directory,
                process_label=labels.process,
                mount_label=labels.mount,
            )
        )
        for warning in built.warnings:
            log.warning("spec adjusted", id=sandbox.id, detail=warning)
        _make_mount_points(rootfs, built.value)
        return built.value

    def _labels(self, sandbox: PodSandbox, features: RuntimeFeatures | None = None) -> Labels:
        return self._selinux.of_pod(sandbox.record, features)

    def _policy(self, sandbox: PodSandbox) -> SpecPolicy:
        settings = self._handlers.settings(sandbox.record.handler)
        return SpecPolicy(
            annotations=settings.default_annotations,
            allowed_annotations=self._allowed(sandbox),
            infra_cpus=self._config.infra_ctr_cpuset,
        )

    def _allowed(self, sandbox: PodSandbox) -> tuple[str, ...]:
        record = sandbox.record
        return self._handlers.allowed_annotations(record.handler, record.config.annotations)

    def _features(self, sandbox: PodSandbox) -> PodFeatures:
        return pod_features(sandbox.record.config, self._allowed(sandbox))

    async def _runtime_down(self, sandbox: PodSandbox) -> None:
        runtime = self.open_runtime(sandbox)
        await runtime.destroy_sandbox(self.reference(sandbox))
        sandbox.runtime = None
        sandbox.pid = 0

    # ready: the last rung, so that a create is complete exactly when this is durable

    async def _ready_up(self, sandbox: PodSandbox) -> None:
        if self._nri.enabled:
            await self._nri.run_pod(sandbox)
        await sandbox.commit(intent=SandboxIntent.READY, complete=True)
        self._nri.pod_ready(sandbox)

    async def _ready_down(self, sandbox: PodSandbox) -> None:
        if sandbox.ready:
            await sandbox.commit(intent=SandboxIntent.STOPPING)


def _make_mount_points(rootfs: Path, spec: dict[str, Any]) -> None:
    """Make what the init task's mounts cover, all directly below the root.

    The runtime would, but as root of the pod's user namespace, which may not write here.
    """
    for mount in spec["mounts"]:
        point = rootfs / mount["destination"].lstrip("/")
        if "bind" in mount["options"]:
            point.touch()
        else:
            point.mkdir(exist_ok=True)


def _shown_to_cadvisor(sandbox: PodSandbox) -> bool:
    """Whether cAdvisor asks for the pod's network: it wants a cgroup of the sandbox and a lasting pid."""
    return sandbox.record.cgroup_prefix == CRIO_PREFIX and not sandbox.record.config.host_network
