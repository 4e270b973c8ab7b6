"""What CreateContainer asks for, looked at once: may it be, of which image, and what will its record say."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass

from noded.config import Config
from noded.engine.container_ladder import pod_user_namespace
from noded.engine.handlers import Handlers
from noded.engine.registry import Registry
from noded.engine.restores import Origin, Restores
from noded.engine.sandbox import PodSandbox
from noded.engine.seccomp_notifier import SeccompNotifier, check_mode
from noded.errors import FailedPrecondition, ImageVolumeMountFailed, NotFound, Unimplemented
from noded.host.cgroups import Cgroups
from noded.images.library import Library
from noded.images.trust.admission import Admission
from noded.model.container import ContainerConfig, ContainerKey, Mount
from noded.model.host import HostFacts
from noded.model.image import Image
from noded.model.lifecycle import ContainerIntent
from noded.model.records import ContainerRecord
from noded.model.runtime import RuntimeFeatures
from noded.spec.annotations import stop_signal
from noded.spec.features import container_features
from noded.spec.pod_features import log_path
from noded.spec.seccomp.annotations import NotifyMode, notify_mode
from noded.spec.validate import validate_container
from noded.tracing.spans import span, wait


@dataclass(frozen=True, slots=True)
class ContainerRequest:
    """A request that may be fulfilled.

    Args:
        raw: the message itself, as it came.
        volumes: the image of each mount that is an image volume, None for the others.
        origin: the checkpoint that the container begins from, if any.
    """

    sandbox: PodSandbox
    config: ContainerConfig
    raw: bytes
    image: Image
    volumes: Sequence[Image | None]
    origin: Origin | None
    seccomp_mode: NotifyMode | None

    @property
    def key(self) -> ContainerKey:
        """What a retry has in common with it."""
        return ContainerKey(self.sandbox.id, self.config.name, self.config.attempt)


class ContainerRequests:
    """Checks requests, and makes records of them. Changes nothing."""

    def __init__(
        self,
        *,
        config: Config,
        facts: HostFacts,
        registry: Registry,
        handlers: Handlers,
        cgroups: Cgroups,
        images: Library,
        admission: Admission,
        notifier: SeccompNotifier,
        restores: Restores,
    ) -> None:
        self._config = config
        self._facts = facts
        self._registry = registry
        self._handlers = handlers
        self._cgroups = cgroups
        self._images = images
        self._admission = admission
        self._notifier = notifier
        self._restores = restores

    async def check(self, sandbox: PodSandbox, config: ContainerConfig, raw: bytes) -> ContainerRequest:
        """Say whether the container may be made as things are now.

        Raises: InvalidArgument naming the field, NotFound for the image, FailedPrecondition,
            Unimplemented for what the handler cannot do, SignatureValidationFailed when the policy of
            now does not accept an image.
        """
        if not sandbox.ready:
            raise FailedPrecondition(f"pod sandbox {sandbox.id[:12]} is not ready: run a new one")
        with wait("check the request"):
            features = await self._handlers.features_of(sandbox.record.handler)
            validate_container(
                config,
                sandbox.record.config,
                features,
                self._facts,
                minimum_memory_bytes=self._config.minimum_memory_bytes,
            )
        mode = self._seccomp_mode(sandbox, config)
        check_mode(mode, sandbox.record.handler, features.seccomp_notify)
        origin = await self._restores.origin(config.image)
        if origin is not None:
            _check_restorable(origin, sandbox, features, mode)
        image = origin.image if origin is not None else self._images.get(config.image)
        if image is None:
            raise NotFound(f"image {config.image!r} is not on this node: pull it first")
        if image.artifact is not None:
            raise FailedPrecondition(
                f"image {config.image!r} is an artifact of type {image.artifact.type!r}: "
                "it can be mounted as an image volume, but no container can be made from it"
            )
        volumes = [self._volume_image(mount, f"mounts[{n}].image") for n, mount in enumerate(config.mounts)]
        namespace = sandbox.record.key.namespace
        with span("image policy"):
            await self._admission.admit(image, config.user_specified_image or config.image, namespace)
            if origin is not None and origin.checkpoint is not None:
                await self._admission.admit(origin.checkpoint, config.image, namespace)
            for mount, volume in zip(config.mounts, volumes, strict=True):
                if volume is not None:
                    await self._admission.admit(volume, mount.image, namespace)
        return ContainerRequest(sandbox, config, raw, image, volumes, origin, mode)

    def record(self, request: ContainerRequest) -> ContainerRecord:
        """The first record of a new container of this request, with an id of its own."""
        sandbox, config, origin = request.sandbox, request.config, request.origin
        needed = [request.image, *(volume for volume in request.volumes if volume is not None)]
        if origin is not None and origin.checkpoint is not None:
            needed.append(origin.checkpoint)
        identity = secrets.token_hex(32)
        return ContainerRecord(
            id=identity,
            key=request.key,
            request=request.raw,
            config=config,
            created_at_ns=self._registry.next_container_time(sandbox, config.name, time.time_ns()),
            boot_id=self._facts.boot_id,
            intent=ContainerIntent.CREATING,
            image_id=request.image.id,
            chain_ids=tuple(dict.fromkeys(chain for one in needed for chain in one.chain_ids)),
            volume_images=tuple(volume.id if volume else "" for volume in request.volumes),
            cgroup=self._cgroups.oci_path(
                sandbox.record.config.cgroup_parent, identity, sandbox.record.cgroup_prefix
            ),
            log_path=log_path(sandbox.record.config, config),
            seccomp_mode=request.seccomp_mode or "",
            stop_signal=self._stop_signal(sandbox, config, request.image),
            resources=config.resources,
            restore=origin.restore if origin is not None else "",
        )

    def _seccomp_mode(self, sandbox: PodSandbox, config: ContainerConfig) -> NotifyMode | None:
        """What is to be told of its system calls, by annotation or because the operator wishes so."""
        if config.security.privileged:  # it has no filter
            return None
        annotations = sandbox.record.config.annotations
        allowed = self._handlers.allowed_annotations(sandbox.record.handler, annotations)
        mode = notify_mode(annotations, config.name, allowed)
        wished = self._notifier.wished(sandbox.id, config.name)
        return NotifyMode.RECORD if wished else mode

    def _stop_signal(self, sandbox: PodSandbox, config: ContainerConfig, image: Image) -> str:
        of_pod = ""
        if not config.stop_signal:
            annotations = sandbox.record.config.annotations
            allowed = self._handlers.allowed_annotations(sandbox.record.handler, annotations)
            asked = container_features(annotations, config.name, allowed, self._config.allowed_devices)
            of_pod = asked.stop_signal
        return stop_signal(config, of_pod, image.config)

    def _volume_image(self, mount: Mount, field: str) -> Image | None:
        """The image of an image volume, None for other mounts."""
        if not mount.image:
            return None
        image = self._images.get(mount.image)
        if image is None:
            raise ImageVolumeMountFailed(f"{field}: {mount.image!r} is not on this node: pull it first")
        return image


def _check_restorable(
    origin: Origin, sandbox: PodSandbox, features: RuntimeFeatures, mode: NotifyMode | None
) -> None:
    """Raises: Unimplemented for what no checkpoint can be restored into."""
    handler = sandbox.record.handler
    if not features.checkpoint:
        raise Unimplemented(
            f"runtime handler {handler!r} cannot restore {origin.restore}: its runtime cannot use CRIU"
        )
    if pod_user_namespace(sandbox) is not None:
        raise Unimplemented("containers of a pod with a user namespace cannot be restored from a checkpoint")
    if mode is not None:
        raise Unimplemented("what a restored container calls cannot be told: CRIU restores its own filters")
