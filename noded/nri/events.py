"""The events that plugins can subscribe to, with the messages of each. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from noded.proto.nri.pkg.api import v1alpha1 as api


@dataclass(frozen=True, slots=True)
class Kind:
    """One event: its number, the plugin's method, and the types of request and answer.

    `old`: plugins that lack the method get StateChange instead.
    """

    event: api.Event
    method: str
    request: type[Any]
    reply: type[Any]
    old: bool = False

    @property
    def bit(self) -> int:
        return 1 << (self.event.value - 1)


RUN_POD = Kind(
    api.Event.RUN_POD_SANDBOX,
    "RunPodSandbox",
    api.RunPodSandboxRequest,
    api.RunPodSandboxResponse,
    old=True,
)
UPDATE_POD = Kind(
    api.Event.UPDATE_POD_SANDBOX,
    "UpdatePodSandbox",
    api.UpdatePodSandboxRequest,
    api.UpdatePodSandboxResponse,
)
UPDATED_POD = Kind(
    api.Event.POST_UPDATE_POD_SANDBOX,
    "PostUpdatePodSandbox",
    api.PostUpdatePodSandboxRequest,
    api.PostUpdatePodSandboxResponse,
    old=True,
)
STOP_POD = Kind(
    api.Event.STOP_POD_SANDBOX,
    "StopPodSandbox",
    api.StopPodSandboxRequest,
    api.StopPodSandboxResponse,
    old=True,
)
REMOVE_POD = Kind(
    api.Event.REMOVE_POD_SANDBOX,
    "RemovePodSandbox",
    api.RemovePodSandboxRequest,
    api.RemovePodSandboxResponse,
    old=True,
)
CREATE = Kind(
    api.Event.CREATE_CONTAINER,
    "CreateContainer",
    api.CreateContainerRequest,
    api.CreateContainerResponse,
)
CREATED = Kind(
    api.Event.POST_CREATE_CONTAINER,
    "PostCreateContainer",
    api.PostCreateContainerRequest,
    api.PostCreateContainerResponse,
    old=True,
)
START = Kind(
    api.Event.START_CONTAINER,
    "StartContainer",
    api.StartContainerRequest,
    api.StartContainerResponse,
    old=True,
)
STARTED = Kind(
    api.Event.POST_START_CONTAINER,
    "PostStartContainer",
    api.PostStartContainerRequest,
    api.PostStartContainerResponse,
    old=True,
)
UPDATE = Kind(
    api.Event.UPDATE_CONTAINER,
    "UpdateContainer",
    api.UpdateContainerRequest,
    api.UpdateContainerResponse,
)
UPDATED = Kind(
    api.Event.POST_UPDATE_CONTAINER,
    "PostUpdateContainer",
    api.PostUpdateContainerRequest,
    api.PostUpdateContainerResponse,
    old=True,
)
STOP = Kind(api.Event.STOP_CONTAINER, "StopContainer", api.StopContainerRequest, api.StopContainerResponse)
REMOVE = Kind(
    api.Event.REMOVE_CONTAINER,
    "RemoveContainer",
    api.RemoveContainerRequest,
    api.RemoveContainerResponse,
    old=True,
)
VALIDATE = Kind(
    api.Event.VALIDATE_CONTAINER_ADJUSTMENT,
    "ValidateContainerAdjustment",
    api.ValidateContainerAdjustmentRequest,
    api.ValidateContainerAdjustmentResponse,
)

ALL_EVENTS: Final = (1 << (api.Event.LAST.value - 1)) - 1
