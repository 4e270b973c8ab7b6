"""Version, Status, RuntimeConfig, UpdateRuntimeConfig."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from importlib.metadata import version

from noded.edge.cri import verbose
from noded.edge.cri.core import Bridge, Node
from noded.edge.deadline import Deadline
from noded.edge.method import Method, unary
from noded.model.host import CgroupDriver
from noded.model.runtime import RuntimeFeatures
from noded.proto.runtime import v1

SERVICE = "runtime.v1.RuntimeService"

_KUBELET_API_VERSION = "0.1.0"  # kubelet refuses any other
_HANDLERS_SECONDS = 25.0  # longer than a handler has to say what it can do
_CGROUP_DRIVERS = {
    CgroupDriver.SYSTEMD: v1.CgroupDriver.SYSTEMD,
    CgroupDriver.CGROUPFS: v1.CgroupDriver.CGROUPFS,
}


class InfoService:
    """What the runtime and its node are."""

    def __init__(self, node: Node, bridge: Bridge) -> None:
        self._node = node
        self._bridge = bridge
        self._version = version("noded")

    def methods(self) -> list[Method]:
        return [
            unary(SERVICE, "Version", v1.VersionRequest, v1.VersionResponse, self.version),
            unary(SERVICE, "Status", v1.StatusRequest, v1.StatusResponse, self.status),
            unary(
                SERVICE,
                "RuntimeConfig",
                v1.RuntimeConfigRequest,
                v1.RuntimeConfigResponse,
                self.runtime_config,
            ),
            unary(
                SERVICE,
                "UpdateRuntimeConfig",
                v1.UpdateRuntimeConfigRequest,
                v1.UpdateRuntimeConfigResponse,
                self.update_runtime_config,
            ),
        ]

    async def version(self, request: v1.VersionRequest, deadline: Deadline) -> v1.VersionResponse:
        return v1.VersionResponse(
            version=_KUBELET_API_VERSION,
            runtime_name="noded",
            runtime_version=self._version,
            runtime_api_version="v1",
        )

    async def status(self, request: v1.StatusRequest, deadline: Deadline) -> v1.StatusResponse:
        # kubelet refuses pods that need what no handler of the last Status could, until it asks again.
        known = asyncio.Event()
        self._node.when_handlers_are_known(known.set)
        budget = deadline.budget_seconds()
        with suppress(TimeoutError):
            async with asyncio.timeout(
                _HANDLERS_SECONDS if budget is None else min(budget, _HANDLERS_SECONDS)
            ):
                await known.wait()
        return v1.StatusResponse(
            status=v1.RuntimeStatus(conditions=self._conditions()),
            info=verbose.info(self._node.info()) if request.verbose else {},
            runtime_handlers=self._handlers(),
            features=v1.RuntimeFeatures(supplemental_groups_policy=True),
        )

    async def runtime_config(
        self, request: v1.RuntimeConfigRequest, deadline: Deadline
    ) -> v1.RuntimeConfigResponse:
        driver = _CGROUP_DRIVERS[CgroupDriver(self._node.cgroup_driver)]
        return v1.RuntimeConfigResponse(linux=v1.LinuxRuntimeConfiguration(cgroup_driver=driver))

    async def update_runtime_config(
        self, request: v1.UpdateRuntimeConfigRequest, deadline: Deadline
    ) -> v1.UpdateRuntimeConfigResponse:
        config = request.runtime_config
        network = None if config is None else config.network_config
        if network is not None and network.pod_cidr:
            await self._bridge.call(
                self._node.update_pod_cidr, network.pod_cidr, deadline_seconds=deadline.budget_seconds()
            )
        return v1.UpdateRuntimeConfigResponse()

    def _conditions(self) -> list[v1.RuntimeCondition]:
        conditions = [
            v1.RuntimeCondition(type=item.type, status=item.status, reason=item.reason, message=item.message)
            for item in self._node.runtime_conditions()
        ]
        network = self._node.network_status()
        conditions.append(
            v1.RuntimeCondition(
                type="NetworkReady", status=network.ready, reason=network.reason, message=network.message
            )
        )
        return conditions

    def _handlers(self) -> list[v1.RuntimeHandler]:
        """All handlers; the default one also as "", where kubelet looks without a RuntimeClass."""
        named = list(self._node.handlers())
        default = [("", features) for name, features in named if name == self._node.default_handler]
        return [_handler(name, features) for name, features in default + named]


def _handler(name: str, features: RuntimeFeatures) -> v1.RuntimeHandler:
    return v1.RuntimeHandler(
        name=name,
        features=v1.RuntimeHandlerFeatures(
            recursive_read_only_mounts=features.recursive_read_only_mounts,
            user_namespaces=features.user_namespaces,
        ),
    )
