"""How each part of a container comes up and goes down, as the rungs of its ladder."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import structlog
import trio

from noded.engine.bundle import BundleSpec
from noded.engine.container import Container
from noded.engine.cpu_tuning import CpuTunings
from noded.engine.disk_quota import disk_quota
from noded.engine.handlers import Handlers
from noded.engine.ladder import Rung
from noded.engine.nri import Nri
from noded.engine.pod_files import make_private
from noded.engine.restores import Restores
from noded.engine.sandbox import PodSandbox
from noded.engine.sandbox_ladder import SandboxLadder
from noded.engine.seccomp_notifier import SeccompNotifier
from noded.engine.selinux import SELinux
from noded.errors import FailedPrecondition, ImageVolumeMountFailed
from noded.host import files, libc
from noded.images.library import Library
from noded.images.snapshots import Snapshots
from noded.images.volumes import ImageVolumes
from noded.model.lifecycle import ContainerIntent
from noded.model.paths import Layout
from noded.model.pod import NamespaceMode, UserNamespace
from noded.model.runtime import Sandbox, TaskCreate
from noded.spec.pod_features import log_link, pod_features
from noded.spec.resources import merge_resources
from noded.store.containers import ContainerRows
from noded.tracing.spans import wait

log = structlog.get_logger(__name__)

_UNDO_SECONDS = 60.0


class ContainerLadder:
    """Knows how each rung of a container comes up and goes down."""

    def __init__(
        self,
        *,
        layout: Layout,
        rows: ContainerRows,
        images: Library,
        snapshots: Snapshots,
        selinux: SELinux,
        container_quota_bytes: int,
        volumes: ImageVolumes,
        spec: BundleSpec,
        handlers: Handlers,
        sandboxes: SandboxLadder,
        nri: Nri,
        notifier: SeccompNotifier,
        restores: Restores,
        tunings: CpuTunings,
        watch: Callable[[Container], None],
    ) -> None:
        self._layout = layout
        self._rows = rows
        self._images = images
        self._snapshots = snapshots
        self._selinux = selinux
        self._container_quota_bytes = container_quota_bytes
        self._volumes = volumes
        self._spec = spec
        self._handlers = handlers
        self._sandboxes = sandboxes
        self._nri = nri
        self._notifier = notifier
        self._restores = restores
        self._tunings = tunings
        self._watch = watch
        self.rungs: tuple[Rung[Container], ...] = (
            Rung("record", self._record_up, self._record_down),
            Rung("bundle", self._bundle_up, self._bundle_down),
            Rung("rootfs", self._rootfs_up, self._rootfs_down),
            Rung("volumes", self._volumes_up, self._volumes_down),
            Rung("checkpoint", self._checkpoint_up, self._checkpoint_down, 240.0, interruptible=True),
            Rung("spec", self._spec_up, self._spec_down, 240.0, interruptible=True),
            Rung("seccomp", self._seccomp_up, self._seccomp_down),
            Rung("runtime", self._runtime_up, self._runtime_down, 240.0, 60.0, interruptible=True),
            Rung("cpus", self._cpus_up, self.release_cpus),
            Rung("ready", self._ready_up, self._ready_down),
        )

    # record

    async def _record_up(self, container: Container) -> None:
        await self._rows.insert(container.record)

    async def _record_down(self, container: Container) -> None:
        await self._rows.delete(container.id)

    # bundle: the directory; what is in it goes with it. The log's directory is the client's, and stays.

    async def _bundle_up(self, container: Container) -> None:
        pod, record = container.sandbox.record, container.record
        link = log_link(pod.config, record.log_path, container.id)
        if link is not None:
            allowed = self._handlers.allowed_annotations(pod.handler, pod.config.annotations)
            link = link if pod_features(pod.config, allowed).log_volume else None

        def make() -> None:
            if record.log_path:
                _make_log_directory(Path(record.log_path).parent)
            if link is not None:
                files.link(Path(link[0]), link[1])
            make_private(container.ref.bundle, pod_user_namespace(container.sandbox))

        await trio.to_thread.run_sync(make)

    async def _bundle_down(self, container: Container) -> None:
        link = log_link(container.sandbox.record.config, container.record.log_path, container.id)

        def remove() -> None:
            if link is not None and os.path.islink(link[0]):
                Path(link[0]).unlink(missing_ok=True)
            files.remove_tree(container.ref.bundle)

        await trio.to_thread.run_sync(remove)

    # rootfs

    async def _rootfs_up(self, container: Container) -> None:
        image = self._images.get(container.record.image_id)
        if image is None:
            raise FailedPrecondition(
                f"image {container.record.image_id} was removed meanwhile: pull it again"
            )
        pod = container.sandbox.record
        quota, warnings = disk_quota(
            pod.config.annotations,
            container.record.config.name,
            self._container_quota_bytes,
            self._handlers.allowed_annotations(pod.handler, pod.config.annotations),
        )
        for warning in warnings:
            log.warning("disk quota adjusted", id=container.id, detail=warning)
        await self._snapshots.prepare(
            container.id,
            image,
            pod_user_namespace(container.sandbox),
            mount_label=await self._mount_label(container),
            quota_bytes=quota,
            storage_driver=self._handlers.settings(pod.handler).storage_driver,
        )

    async def _mount_label(self, container: Container) -> str:
        record = container.sandbox.record
        features = await self._handlers.features_of(record.handler)
        labels = await self._selinux.of_container(record, container.record.config.security, features)
        return labels.mount

    async def _rootfs_down(self, container: Container) -> None:
        await self._snapshots.remove(container.id)

    # volumes: images that are mounted beside the rootfs

    async def _volumes_up(self, container: Container) -> None:
        if not any(container.record.volume_images):
            return
        label = await self._mount_label(container)
        for index, image_id in enumerate(container.record.volume_images):
            if not image_id:
                continue
            image = self._images.get(image_id)
            if image is None:
                raise ImageVolumeMountFailed(
                    f"mounts[{index}].image: image {image_id} was removed meanwhile: pull it again"
                )
            await self._volumes.mount(
                container.id, index, image, pod_user_namespace(container.sandbox), label
            )

    async def _volumes_down(self, container: Container) -> None:
        if not any(container.record.volume_images):
            return
        await self._volumes.unmount_all(container.id)

    # checkpoint: the files that a container to be restored had written, and the images of its processes

    async def _checkpoint_up(self, container: Container) -> None:
        if container.record.restore:
            await self._restores.bring_files(container)

    async def _checkpoint_down(self, container: Container) -> None:
        if container.record.restore:
            await self._restores.remove_files(container)

    # spec: no effect outside the bundle but creating missing mount sources, as both peers do

    async def _spec_up(self, container: Container) -> None:
        image = self._images.get(container.record.image_id)
        if image is None:
            raise FailedPrecondition(
                f"image {container.record.image_id} was removed meanwhile: pull it again"
            )
        spec, user = await self._spec.build(container, image)
        resources = container.record.resources
        if self._nri.enabled:
            with wait("NRI plugins"):
                spec, limits = await self._nri.create(container, spec, partial(self._spec.inject, container))
            resources = merge_resources(resources, limits) if limits is not None else resources
        if container.record.restore:
            await self._restores.check_mounts(container, spec)
        data = json.dumps(spec, separators=(",", ":")).encode()
        # Bundles are on a tmpfs: a thread would cost more than the write.
        files.publish(container.ref.bundle / "config.json", data, 0o600, durable=False)
        # Only a status tells it, and of a container that is complete. But the CPUs are tuned by resources.
        container.commit_later(user=user)
        if resources != container.record.resources:
            await container.commit(resources=resources)

    async def _spec_down(self, container: Container) -> None:
        """Nothing: the file goes with the bundle."""

    # seccomp: who answers for its filter, if it is to tell of calls

    async def _seccomp_up(self, container: Container) -> None:
        await self._notifier.up(container)

    async def _seccomp_down(self, container: Container) -> None:
        await self._notifier.down(container)

    # runtime

    async def sandbox_runtime(self, container: Container) -> Sandbox:
        """The open sandbox of the container's pod."""
        return await self.open_sandbox(container.sandbox)

    async def open_sandbox(self, sandbox: PodSandbox) -> Sandbox:
        """A pod's sandbox in its runtime."""
        if sandbox.runtime is None:
            runtime = self._sandboxes.open_runtime(sandbox)
            sandbox.runtime = await runtime.attach_sandbox(self._sandboxes.reference(sandbox))
        return sandbox.runtime

    async def _runtime_up(self, container: Container) -> None:
        if not container.record.restore:  # else it begins to run at once, so that is for the start
            runtime = await self.sandbox_runtime(container)
            container.created_pid = await runtime.create(self._task(container))

    async def restore(self, container: Container) -> None:
        """Make and run the task of a container that is restored.

        Raises: as `noded.model.runtime.Sandbox.create`; nothing of the task is left then.
        """
        runtime = await self.sandbox_runtime(container)
        await runtime.delete(container.ref)  # of a start that a dying daemon did not finish
        images = await self._restores.images(container)
        try:
            task = replace(self._task(container), restore_from=images)
            container.created_pid = await runtime.create(task)
            await self._tunings.up(container)
        except BaseException:
            with trio.move_on_after(_UNDO_SECONDS, shield=True):
                await self._tunings.down(container)
                await runtime.delete(container.ref)
            raise
        await self._restores.drop_files(container)

    def _task(self, container: Container) -> TaskCreate:
        record, config = container.record, container.record.config
        return TaskCreate(
            ref=container.ref,
            log_path=record.log_path,
            terminal=config.tty,
            stdin=config.stdin,
            stdin_once=config.stdin_once,
            monitor_cgroup=self._sandboxes.monitor_cgroup(container.sandbox),
            deadline_seconds=self._handlers.create_timeout_seconds(container.sandbox.record.handler),
        )

    async def _runtime_down(self, container: Container) -> None:
        if container.task_gone:
            return
        runtime = await self.sandbox_runtime(container)
        await runtime.delete(container.ref)

    # cpus: what annotations ask of the CPUs, once its cgroup is there

    async def _cpus_up(self, container: Container) -> None:
        if not container.record.restore:  # else it has no cgroup before its start
            await self._tunings.up(container)

    async def release_cpus(self, container: Container) -> None:
        """Undo what was done to the node's CPUs for a container that has ended. Idempotent."""
        await self._tunings.down(container)

    # ready

    async def _ready_up(self, container: Container) -> None:
        # One commit with the pid: without it a restart takes the container down, by the record alone.
        await container.commit(pid=container.created_pid, intent=ContainerIntent.CREATED)
        if not container.record.restore:
            self._watch(container)

    async def _ready_down(self, container: Container) -> None:
        if container.record.intent in (ContainerIntent.CREATED, ContainerIntent.STARTED):
            await container.commit(intent=ContainerIntent.REMOVING)


def pod_user_namespace(sandbox: PodSandbox) -> UserNamespace | None:
    """The pod's own user namespace, None when it uses the host's."""
    options = sandbox.record.config.namespaces.userns
    return options if options is not None and options.mode is NamespaceMode.POD else None


def _make_log_directory(directory: Path) -> None:
    """kubelet makes it; other clients count on the runtime, as containerd and CRI-O make it too."""
    try:
        directory.mkdir(0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise libc.os_error(error, f"log_path: cannot make the directory {directory}") from None
