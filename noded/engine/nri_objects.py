"""Pods and containers as NRI plugins see them."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import trio

from noded.engine.container import Container
from noded.engine.registry import Registry
from noded.engine.sandbox import PodSandbox
from noded.images.library import Library
from noded.model.states import ContainerState

if TYPE_CHECKING:
    from noded.proto.nri.pkg.api.v1alpha1 import Container as NriContainer
    from noded.proto.nri.pkg.api.v1alpha1 import PodSandbox as NriPod

Namespaces = Callable[[PodSandbox], dict[str, str]]

_LIVE = (ContainerState.CREATED, ContainerState.RUNNING)


class Objects:
    """Makes the messages.

    Attributes:
        namespaces: gives kinds and paths of a sandbox's pinned namespaces; set by who knows them.
    """

    def __init__(self, registry: Registry, images: Library) -> None:
        self._registry = registry
        self._images = images
        self.namespaces: Namespaces = lambda sandbox: {}

    def pod(self, sandbox: PodSandbox) -> NriPod:
        from noded.nri.objects import pod_sandbox

        return pod_sandbox(sandbox.record, sandbox.view, self.namespaces(sandbox), sandbox.view.pid)

    async def container(self, container: Container) -> NriContainer:
        """A container with the spec that is written in its bundle."""
        data = b"{}"
        with suppress(OSError):  # not made yet, or gone already
            data = await trio.Path(container.ref.bundle / "config.json").read_bytes()
        return self.shown(container, json.loads(data))

    def shown(self, container: Container, spec: dict[str, Any]) -> NriContainer:
        """A container with this spec."""
        from noded.nri.objects import container as shown

        image = self._images.get(container.record.image_id)
        digests = image.digests if image is not None else ()
        return shown(
            container.record,
            container.view,
            spec,
            image_name=container.record.config.user_specified_image or container.record.config.image,
            image_digest=digests[0] if digests else "",
        )

    async def all(self, begun: Collection[str]) -> tuple[list[NriPod], list[NriContainer]]:
        """What a new plugin is told of: what is visible and alive, and what is `begun`, by id."""
        pods = [
            self.pod(sandbox) for sandbox in self._registry.sandboxes() if sandbox.made or sandbox.id in begun
        ]
        containers = [
            one
            for one in self._registry.containers()
            if (one.made and one.view.state in _LIVE) or one.id in begun
        ]
        return pods, [await self.container(one) for one in containers]
