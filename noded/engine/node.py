"""The node as a whole: is it fit for pods, what can it do, what does it owe."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from noded.config import Config
from noded.engine.debts import Debt, Debts
from noded.engine.handlers import Handlers
from noded.engine.nri import Nri
from noded.engine.sandboxes import Sandboxes
from noded.images.stores import AdditionalStores
from noded.model.host import HostFacts
from noded.model.network import NetworkStatus
from noded.model.runtime import RuntimeFeatures
from noded.network.network import Network
from noded.plugins import Hooks


@dataclass(frozen=True, slots=True)
class Condition:
    """One health statement (CRI `RuntimeCondition`)."""

    type: str
    status: bool
    reason: str = ""
    message: str = ""


class Node:
    """Answers about the node; everything but `update_pod_cidr` and `forgive` from memory."""

    def __init__(
        self,
        *,
        config: Config,
        facts: HostFacts,
        handlers: Handlers,
        hooks: Hooks,
        network: Network,
        sandboxes: Sandboxes,
        debts: Debts,
        nri: Nri,
        image_stores: AdditionalStores,
    ) -> None:
        self._config = config
        self._facts = facts
        self._handlers = handlers
        self._hooks = hooks
        self._network = network
        self._sandboxes = sandboxes
        self._debts = debts
        self._nri = nri
        self._image_stores = image_stores

    @property
    def default_handler(self) -> str:
        return self._handlers.default

    @property
    def cgroup_driver(self) -> str:
        return self._facts.cgroup_driver.value

    def runtime_conditions(self) -> Sequence[Condition]:
        """RuntimeReady, then whether something is owed, and whether additional image stores are there."""
        problem = self._handlers.problems.get(self._handlers.default, "")
        ready = Condition(
            "RuntimeReady",
            not problem,
            "DefaultHandlerUnavailable" if problem else "",
            f"default runtime handler {self._handlers.default!r} is unavailable: {problem}"
            if problem
            else "",
        )
        debts = self._debts.listed()
        owed = "; ".join(f"{debt.id[:12]} at {debt.kind}: {debt.last_error}" for debt in debts[:3])
        clean = Condition(
            "NodedNoDebts",
            not debts,
            "TakeDownOwed" if debts else "",
            f"{len(debts)} pods or containers could not be taken down yet: {owed}" if debts else "",
        )
        if not self._config.images.additional_stores:
            return (ready, clean)
        problems = self._image_stores.problems()
        stores = Condition(
            "NodedImageStores",
            not problems,
            "StoreUnusable" if problems else "",
            "; ".join(problems.values()),
        )
        return (ready, clean, stores)

    def network_status(self) -> NetworkStatus:
        """Whether pods can be attached to the network, and why not."""
        return self._network.status()

    def when_handlers_are_known(self, tell: Callable[[], None]) -> None:
        """Call `tell` once it is known what the handlers can do, in place when it is."""
        self._handlers.when_probed(tell)

    def handlers(self) -> Sequence[tuple[str, RuntimeFeatures]]:
        """The available handlers with their features, the default first."""
        return self._handlers.features()

    def info(self) -> Mapping[str, Any]:
        """Details for people: facts of the host, unavailable handlers, paths."""
        facts = self._facts
        return {
            "cgroupMode": facts.cgroup_mode.value,
            "cgroupDriver": facts.cgroup_driver.value,
            "cgroupControllers": sorted(facts.cgroup_controllers),
            "kernel": ".".join(map(str, facts.kernel)),
            "apparmor": facts.apparmor,
            "selinux": facts.selinux,
            "root": str(self._config.root),
            "state": str(self._config.state),
            "defaultHandler": self._handlers.default,
            "unavailableHandlers": dict(self._handlers.problems),
            "plugins": self._hooks.report(),
            "nriPlugins": self._nri.report(),
            "debts": len(self._debts.listed()),
        }

    async def update_pod_cidr(self, cidrs: str) -> None:
        """Take the node's pod address ranges, comma-separated. Idempotent."""
        if cidrs:
            await self._network.update_pod_cidr(cidrs)

    def debts(self) -> Sequence[Debt]:
        """Everything owed."""
        return self._debts.listed()

    async def forgive(self, debt_id: str) -> str:
        """Give up one debt; return its whole id. Raises: as `Sandboxes.forgive`."""
        return await self._sandboxes.forgive(debt_id)
