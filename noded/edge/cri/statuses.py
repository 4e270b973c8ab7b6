"""Full statuses of pods and containers, each encoded once for as long as it stays the same.

kubelet asks for the status of every pod that changed, and events carry those of a whole pod; encoding
one in Python costs up to a millisecond.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from noded.edge.cri import encode_container, encode_pod
from noded.edge.cri.core import Containers, Identified, Images, Sandboxes
from noded.model.views import ContainerView, SandboxView
from noded.wire.messages import encode
from noded.wire.protobuf import record

V = TypeVar("V", bound=Identified)

_SLACK = 64


class _Cache(Generic[V]):
    def __init__(self, build: Callable[[V], bytes]) -> None:
        self._build = build
        self._known: dict[str, tuple[V, bytes]] = {}

    def of(self, view: V) -> bytes:
        cached = self._known.get(view.id)
        if cached is not None and cached[0] is view:
            return cached[1]
        data = self._build(view)
        self._known[view.id] = view, data
        return data

    def keep(self, alive: Callable[[], Iterable[V]]) -> None:
        if len(self._known) > self._limit:
            ids = {view.id for view in alive()}
            self._known = {key: value for key, value in self._known.items() if key in ids}
            self._limit = 2 * len(self._known) + _SLACK

    _limit = _SLACK


class Statuses:
    """Encoded PodSandboxStatus and ContainerStatus messages."""

    def __init__(self, sandboxes: Sandboxes, containers: Containers, images: Images) -> None:
        self._sandboxes = sandboxes
        self._containers = containers
        self._images = images
        self._pods = _Cache[SandboxView](lambda view: encode(encode_pod.status(view)))
        self._statuses = _Cache(self._encode_container)

    def sandbox(self, view: SandboxView) -> bytes:
        """A PodSandboxStatus."""
        self._pods.keep(self._sandboxes.views)
        return self._pods.of(view)

    def container(self, view: ContainerView) -> bytes:
        """A ContainerStatus."""
        if any(mount.image for mount in view.config.mounts):
            return self._encode_container(view)  # shows whether the mounted image is still there
        self._statuses.keep(self._containers.views)
        return self._statuses.of(view)

    def records(self, field: int, views: Iterable[ContainerView]) -> bytes:
        """ContainerStatus messages as the repeated field `field` of another message, newest first.

        With EventedPLEG kubelet takes the first of a name for its latest attempt (kuberuntime_manager.go,
        GetPodStatus): with an older one first it would create attempts anew that have run.
        """
        newest = sorted(views, key=lambda view: view.created_at_ns, reverse=True)
        return b"".join(record(field, self.container(view)) for view in newest)

    def _encode_container(self, view: ContainerView) -> bytes:
        return encode(encode_container.status(view, self._image_id))

    def _image_id(self, reference: str) -> str:
        image = self._images.get(reference)
        return "" if image is None else image.id
