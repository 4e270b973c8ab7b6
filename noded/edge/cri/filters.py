"""CRI list filters as predicates on views."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from noded.edge.cri.core import Images
from noded.edge.cri.fields import enum
from noded.model.image import Image
from noded.model.states import ContainerState, SandboxState
from noded.model.views import ContainerView, SandboxView
from noded.proto.runtime import v1


def sandboxes(views: Collection[SandboxView], wanted: v1.PodSandboxFilter | None) -> Collection[SandboxView]:
    """The sandboxes that pass. Raises: InvalidArgument for an unknown state."""
    if wanted is None:
        return views
    state = None if wanted.state is None else enum(SandboxState, wanted.state.state, "filter.state.state")
    labels = wanted.label_selector
    return [
        view
        for view in views
        if view.id.startswith(wanted.id)
        and (state is None or view.state is state)
        and _matches(view.config.labels, labels)
    ]


def containers(
    views: Collection[ContainerView], wanted: v1.ContainerFilter | None
) -> Collection[ContainerView]:
    """The containers that pass. Raises: InvalidArgument for an unknown state."""
    if wanted is None:
        return views
    state = None if wanted.state is None else enum(ContainerState, wanted.state.state, "filter.state.state")
    labels = wanted.label_selector
    return [
        view
        for view in views
        if view.id.startswith(wanted.id)
        and view.sandbox_id.startswith(wanted.pod_sandbox_id)
        and (state is None or view.state is state)
        and _matches(view.config.labels, labels)
    ]


def images(store: Images, wanted: v1.ImageFilter | None) -> Collection[Image]:
    """All images, or the one that the filter names."""
    if wanted is None or wanted.image is None or not wanted.image.image:
        return store.list()
    image = store.get(wanted.image.image)
    return [] if image is None else [image]


def _matches(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in selector.items())
