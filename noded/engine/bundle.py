"""Gathers everything a container's spec is made of, and has it built.

All decisions are in the pure functions of `noded.spec`; this module only collects facts.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog
import trio

from noded.config import Config
from noded.engine.apparmor import AppArmor
from noded.engine.cdi import CdiDevices
from noded.engine.container import Container
from noded.engine.declared_volumes import declared_volumes
from noded.engine.default_mounts import default_mounts
from noded.engine.devices import host_devices, resolve_devices
from noded.engine.handlers import Handlers
from noded.engine.hook_directories import HookDirectories
from noded.engine.looks import Looks
from noded.engine.past import Found, Past
from noded.engine.pod_files import effective_hostname
from noded.engine.registry import Registry
from noded.engine.resource_classes import blockio_of, rdt_of
from noded.engine.sandbox import PodSandbox
from noded.engine.sandbox_ladder import SandboxLadder
from noded.engine.seccomp_profiles import SeccompProfiles
from noded.engine.selinux import SELinux, relabel_mounts
from noded.engine.spec_files import read_base_spec, read_handler_profile
from noded.engine.volumes import resolve_mounts
from noded.errors import FailedPrecondition, InvalidArgument
from noded.host import files
from noded.images.content import ContentStore
from noded.images.volumes import ImageVolumes
from noded.model.container import ContainerUser
from noded.model.extension import Edit
from noded.model.host import HostFacts
from noded.model.image import Image
from noded.model.paths import Layout
from noded.model.pod import NamespaceMode
from noded.model.records import SandboxRecord
from noded.model.runtime import RuntimeFeatures
from noded.model.states import ContainerState
from noded.plugins import Hooks
from noded.spec.cdi.names import requested_devices
from noded.spec.container import container_spec
from noded.spec.granted import Granted, granted
from noded.spec.inputs import (
    ContainerInputs,
    NamespacePaths,
    PodFiles,
    ResolvedMount,
    SpecPolicy,
)
from noded.spec.namespaces import pid_mode, user_namespace
from noded.spec.pod_features import log_mounts, pod_features
from noded.spec.policy import spec_policy
from noded.spec.process import parse_rlimits
from noded.spec.seccomp.annotations import NotifyMode
from noded.spec.sysctls import pod_sysctls
from noded.spec.user import resolve_user

log = structlog.get_logger(__name__)

_DATABASE_LIMIT_BYTES = 8 * 1024 * 1024  # /etc/passwd and /etc/group of an image
_IMAGE_CONFIG_LIMIT_BYTES = 8 * 1024 * 1024


class BundleSpec:
    """Builds the OCI spec of one container."""

    def __init__(
        self,
        *,
        config: Config,
        layout: Layout,
        facts: HostFacts,
        handlers: Handlers,
        registry: Registry,
        sandboxes: SandboxLadder,
        volumes: ImageVolumes,
        content: ContentStore,
        hooks: Hooks,
        profiles: SeccompProfiles,
        selinux: SELinux,
    ) -> None:
        self._config = config
        self._layout = layout
        self._facts = facts
        self._handlers = handlers
        self._registry = registry
        self._sandboxes = sandboxes
        self._looks = Looks()
        self._apparmor = AppArmor(facts, config.apparmor_profile)
        self._image_volumes = volumes
        self._content = content
        self._hooks = hooks
        self._profiles = profiles
        self._selinux = selinux
        self._rlimits = parse_rlimits(config.default_ulimits, "default_ulimits")
        self._must_exist = frozenset(map(os.path.normpath, config.absent_mount_sources_to_reject))
        self.cdi = CdiDevices(config.cdi_spec_dirs)
        self.hook_directories = HookDirectories(config.hooks_dirs)

    async def build(self, container: Container, image: Image) -> tuple[dict[str, Any], ContainerUser]:
        """Return the spec and the identity its process runs with.

        The rootfs and image volumes must be mounted.

        Raises: InvalidArgument, FailedPrecondition, DeadlineExceeded, ImageVolumeMountFailed.
        Cancellation: safe, nothing but missing mount sources is made.
        """
        inputs, not_granted = await self.inputs(container, image)
        spec, warnings = container_spec(inputs)
        for warning in (*not_granted, *warnings):
            log.warning("spec adjusted", id=container.id, detail=warning)
        pod, config, user = inputs.pod, inputs.container, inputs.user
        with_devices = await self.cdi.apply(spec, requested_devices(config), inputs.features)
        with_hooks = await self.hook_directories.apply(with_devices, pod, config)
        spec = await self._edited(dict(with_hooks), container, image)
        return spec, ContainerUser(user.uid, user.gid, user.additional_gids)

    async def inputs(
        self, container: Container, image: Image, past: Past | None = None
    ) -> tuple[ContainerInputs, tuple[str, ...]]:
        """Collect what the spec is made of, and what of the annotations could not be granted.

        Args:
            past: of a container that was made already: then nothing is looked up that could change the node.

        Raises: as `build`. Cancellation: safe.
        """
        sandbox = container.sandbox
        rootfs = self._layout.rootfs(container.id)
        annotations = sandbox.record.config.annotations
        features = await self._handlers.features_of(sandbox.record.handler)
        allowed = self._handlers.allowed_annotations(sandbox.record.handler, annotations)
        given = granted(
            annotations,
            container.record.config,
            replace(await self.policy(sandbox.record.handler), allowed_annotations=allowed),
            self._facts,
            workloads=self._config.workloads,
            allowed_devices=self._config.allowed_devices,
            shared_cpuset=self._config.shared_cpuset,
        )
        config, pod = given.container, pod_features(sandbox.record.config, allowed)
        if past is not None:
            found = past.found(container.record.config.mounts, image)
        else:
            found = await self._find(container, image, given, features)
        inputs = ContainerInputs(
            pod=sandbox.record.config,
            container=config,
            image=image.config,
            user=found.user,
            host=self._facts,
            features=features,
            sandbox_id=sandbox.id,
            container_id=container.id,
            rootfs=str(rootfs),
            cgroups_path=container.record.cgroup,
            policy=replace(given.policy, apparmor_profile=found.apparmor),
            namespaces=self._namespaces(container, found.pid_namespace),
            files=self._files(sandbox),
            mounts=found.mounts,
            volumes=found.volumes,
            node_mounts=(
                *await default_mounts(
                    self._config.default_mounts_file,
                    self._facts,
                    container.ref.bundle,
                    rootfs,
                    disable_fips=given.fips_disabled,
                ),
                *log_mounts(sandbox.record.config, config, pod.log_volume),
            ),
            devices=await trio.to_thread.run_sync(resolve_devices, config.devices) if config.devices else (),
            host_devices=await trio.to_thread.run_sync(host_devices) if config.security.privileged else (),
            hostname=effective_hostname(sandbox.record.config, socket.gethostname()),
            log_path=container.record.log_path,
            block_io=await blockio_of(self._config, self._facts, annotations, config.name),
            rdt_class=await rdt_of(self._config, annotations, config.name),
            stop_signal=container.record.stop_signal,
            seccomp_mode=NotifyMode(container.record.seccomp_mode) if container.record.seccomp_mode else None,
            seccomp_listener=str(self._layout.seccomp_listener(container.id)),
            seccomp_profile=found.profile,
            process_label=found.labels.process,
            mount_label=found.labels.mount,
        )
        if past is None:
            await self._selinux.label_own(container.ref.bundle, found.volumes, found.labels)
        return inputs, given.refused

    async def _find(
        self, container: Container, image: Image, given: Granted, features: RuntimeFeatures
    ) -> Found:
        """Look up what a container gets that is being made, and make what its mounts and VOLUMEs lack."""
        rootfs = self._layout.rootfs(container.id)
        sandbox, config, security = container.sandbox, container.record.config, given.container.security
        labels = await self._selinux.of_container(sandbox.record, config.security, features)
        mounts = await self._mounts(container)
        await relabel_mounts(mounts, labels)
        databases = await trio.to_thread.run_sync(read_databases, rootfs)
        user = resolve_user(databases[0], databases[1], image.config.user, config.security)
        await self._apparmor.check_named(security)
        return Found(
            labels=labels,
            mounts=mounts,
            user=user,
            apparmor=await self._apparmor.default_for(security, given.policy.apparmor_profile),
            profile=await self._profiles.of(container, image, given.policy.allowed_annotations),
            volumes=await declared_volumes(
                image.config.volumes,
                config.mounts,
                rootfs,
                self._layout.container_data(container.id),
                user_namespace(sandbox.record.config),
            ),
            pid_namespace=await self._pid_namespace(container),
        )

    async def _mounts(self, container: Container) -> tuple[ResolvedMount, ...]:
        config = container.record.config

        def stage(text: str) -> None:
            container.stage = text

        images = {
            index: await self._image_volumes.source(container.id, index, mount.image_sub_path)
            for index, mount in enumerate(config.mounts)
            if mount.image
        }
        mounts = await resolve_mounts(config.mounts, images, self._looks, stage, self._must_exist)
        stage("spec")
        return mounts

    async def _edited(self, spec: dict[str, Any], container: Container, image: Image) -> dict[str, Any]:
        """The spec with what plugins change in it."""
        if not self._hooks.edits_specs:
            return spec
        container.stage = "spec edits of plugins"
        pod, config = container.sandbox.record.config, container.record.config
        return await self._hooks.edit_spec(spec, pod, config, await self._configuration(image))

    async def wanted_edits(
        self, spec: Mapping[str, Any], container: Container, image: Image
    ) -> list[tuple[str, Edit]]:
        """Pairs of (distribution, edit) that plugins want of this spec. Raises: as `Hooks.wanted_edits`."""
        if not self._hooks.edits_specs:
            return []
        pod, config = container.sandbox.record.config, container.record.config
        return await self._hooks.wanted_edits(spec, pod, config, await self._configuration(image))

    async def _configuration(self, image: Image) -> dict[str, Any]:
        blob = await trio.to_thread.run_sync(
            self._content.read, image.config_digest, _IMAGE_CONFIG_LIMIT_BYTES
        )
        document: dict[str, Any] = json.loads(blob)
        return document

    async def policy(self, handler: str) -> SpecPolicy:
        """The administrator's decisions for containers of this handler. Raises FailedPrecondition."""
        settings = self._handlers.settings(handler)
        privileged = settings.privileged_seccomp_profile
        return spec_policy(
            self._config,
            settings,
            self._rlimits,
            default_seccomp=await read_handler_profile(handler, settings.seccomp_profile),
            privileged_seccomp=await read_handler_profile(handler, privileged, "privileged_seccomp_profile"),
            base=await read_base_spec(handler, settings.base_spec) if settings.base_spec else None,
        )

    def pod_sysctls(self, pod: SandboxRecord) -> Mapping[str, str]:
        """What was written in the namespaces of a pod when it was made, if nothing was reloaded since."""
        of_handler = self._handlers.settings(pod.handler).default_sysctls
        return pod_sysctls(self._config.default_sysctls, of_handler, pod.config)

    async def inject(
        self, container: Container, spec: Mapping[str, Any], devices: Sequence[str]
    ) -> Mapping[str, Any]:
        """Return the spec of this container with CDI devices in it. Raises: as `CdiDevices.apply`."""
        _, features = await self._handlers.open(container.sandbox.record.handler)
        return await self.cdi.apply(spec, devices, features)

    def _namespaces(self, container: Container, pid: str | None) -> NamespacePaths:
        pins = self._sandboxes.pins(container.sandbox.id, container.sandbox.record.config)
        return NamespacePaths(**{kind: str(path) for kind, path in pins.items()}, pid=pid)

    async def _pid_namespace(self, container: Container) -> str | None:
        options = container.record.config.security.namespaces
        mode = pid_mode(container.sandbox.record.config, options)
        if mode is NamespaceMode.POD and container.sandbox.runtime is not None:
            pid = await container.sandbox.runtime.infra_pid()
            if pid is None:
                raise FailedPrecondition(
                    f"the init process of pod sandbox {container.sandbox.id[:12]} is gone: run a new sandbox"
                )
            return f"/proc/{pid}/ns/pid"
        if mode is NamespaceMode.TARGET:
            target = self._registry.find_container(options.target_id)
            if target is None or target.sandbox is not container.sandbox:
                raise InvalidArgument(
                    f"security_context.namespace_options.target_id {options.target_id!r} "
                    "is no container of this pod"
                )
            if target.view.state is not ContainerState.RUNNING:
                raise FailedPrecondition(f"target container {target.id[:12]} is not running")
            return f"/proc/{target.record.pid}/ns/pid"
        return None

    def _files(self, sandbox: PodSandbox) -> PodFiles:
        directory = self._layout.pod(sandbox.id)
        host_ipc = sandbox.record.config.namespaces.ipc is NamespaceMode.NODE
        return PodFiles(
            resolv_conf=str(directory / "resolv.conf"),
            hostname=str(directory / "hostname"),
            hosts=str(directory / "hosts"),
            shm="/dev/shm" if host_ipc else str(directory / "shm"),
            localtime=f"/usr/share/zoneinfo/{self._config.timezone}" if self._config.timezone else None,
        )


def read_databases(rootfs: Path) -> tuple[str, str]:
    """The contents of /etc/passwd and /etc/group in a root file system, "" for one that is not there."""
    texts = []
    for name in ("/etc/passwd", "/etc/group"):
        data = files.read_beneath(rootfs, name, _DATABASE_LIMIT_BYTES)
        texts.append((data or b"").decode("utf-8", "replace"))
    return texts[0], texts[1]
