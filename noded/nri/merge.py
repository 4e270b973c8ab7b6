"""Putting together what several plugins want of one request. Pure.

Each plugin is shown the container as the plugins before it left it. A key with a dash in front
takes an entry away, and only then may a plugin set what an earlier one has set.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from noded.errors import FailedPrecondition
from noded.nri.owners import Field, Owners
from noded.proto.nri.pkg.api import v1alpha1 as api

REMOVED: Final = "-"

_MEMORY: Final = {
    "limit": Field.MEM_LIMIT,
    "reservation": Field.MEM_RESERVATION,
    "swap": Field.MEM_SWAP_LIMIT,
    "kernel": Field.MEM_KERNEL_LIMIT,
    "kernel_tcp": Field.MEM_TCP_LIMIT,
    "swappiness": Field.MEM_SWAPPINESS,
    "disable_oom_killer": Field.MEM_DISABLE_OOM_KILLER,
    "use_hierarchy": Field.MEM_USE_HIERARCHY,
}
_CPU: Final = {
    "shares": Field.CPU_SHARES,
    "quota": Field.CPU_QUOTA,
    "period": Field.CPU_PERIOD,
    "realtime_runtime": Field.CPU_REALTIME_RUNTIME,
    "realtime_period": Field.CPU_REALTIME_PERIOD,
    "cpus": Field.CPUSET_CPUS,
    "mems": Field.CPUSET_MEMS,
}
_CLASSES: Final = {"blockio_class": Field.BLOCKIO_CLASS, "rdt_class": Field.RDT_CLASS}
_HOOKS: Final = (
    "prestart", "create_runtime", "create_container", "start_container", "poststart", "poststop",
)  # fmt: skip
_LINUX: Final = {
    "cgroups_path": Field.CGROUPS_PATH,
    "oom_score_adj": Field.OOM_SCORE_ADJ,
    "io_priority": Field.IO_PRIORITY,
    "seccomp_policy": Field.SECCOMP_POLICY,
    "scheduler": Field.SCHEDULER,
}
_RDT: Final = {
    "clos_id": Field.RDT_CLOS_ID,
    "schemata": Field.RDT_SCHEMATA,
    "enable_monitoring": Field.RDT_MONITORING,
}


def removal(key: str) -> str | None:
    """The name of the entry that `key` takes away, None when it does not take one away."""
    return key[1:] if key.startswith(REMOVED) else None


def merge_limits(
    into: api.LinuxResources, changes: api.LinuxResources, claim: Callable[[Field, str | None], None]
) -> None:
    """Set in `into` what `changes` says. `claim` is called before each change and may raise."""
    for part, fields, kind in (("memory", _MEMORY, api.LinuxMemory), ("cpu", _CPU, api.LinuxCpu)):
        wanted = getattr(changes, part)
        if wanted is None:
            continue
        if getattr(into, part) is None:
            setattr(into, part, kind())
        for name, what in fields.items():
            value = getattr(wanted, name)
            if value is not None and value != "":
                claim(what, None)
                setattr(getattr(into, part), name, copy.copy(value))
    for limit in changes.hugepage_limits:
        claim(Field.HUGEPAGE_LIMITS, limit.page_size)
        into.hugepage_limits = [one for one in into.hugepage_limits if one.page_size != limit.page_size]
        into.hugepage_limits.append(limit)
    for key, value in changes.unified.items():
        claim(Field.CGROUPS_UNIFIED, key)
        into.unified[key] = value
    for name, what in _CLASSES.items():
        if getattr(changes, name) is not None:
            claim(what, None)
            setattr(into, name, copy.copy(getattr(changes, name)))
    if changes.pids is not None:
        claim(Field.PIDS_LIMIT, None)
        into.pids = copy.copy(changes.pids)
    into.devices.extend(changes.devices)


@dataclass(slots=True)
class Updates:
    """Updates that plugins want of containers other than a new one.

    Args:
        forbidden: id of the container that is being created, "" = none.
        requested: id of the container that the client updates, with what it asks; plugins change that.
    """

    owners: Owners
    forbidden: str = ""
    requested: tuple[str, api.LinuxResources] | None = None
    by_id: dict[str, api.ContainerUpdate] = field(default_factory=dict)
    evictions: list[api.ContainerEviction] = field(default_factory=list)

    def add(self, plugin: str, updates: Iterable[api.ContainerUpdate]) -> None:
        """Raises: FailedPrecondition when a plugin contradicts another one."""
        for update in updates:
            if update.container_id == self.forbidden:
                raise FailedPrecondition(
                    f"NRI plugin {plugin} updates the container that is being created: it must adjust it"
                )
            if update.linux is None or update.linux.resources is None:
                continue
            try:
                self._add(plugin, update.container_id, update.linux.resources, update.ignore_failure)
            except FailedPrecondition:
                if not update.ignore_failure:
                    raise

    def _add(self, plugin: str, container_id: str, changes: api.LinuxResources, ignore_failure: bool) -> None:
        def claim(what: Field, key: str | None) -> None:
            self.owners.claim(container_id, what, plugin, key)

        if self.requested is not None and container_id == self.requested[0]:
            merge_limits(self.requested[1], changes, claim)
            return
        known = self.by_id.get(container_id)
        if known is None:
            known = api.ContainerUpdate(
                container_id=container_id,
                linux=api.LinuxContainerUpdate(resources=api.LinuxResources()),
                ignore_failure=True,
            )
        assert known.linux is not None
        assert known.linux.resources is not None
        merged = copy.deepcopy(known.linux.resources)  # nothing of an update that fails half-way is kept
        merge_limits(merged, changes, claim)
        known.linux.resources = merged
        known.ignore_failure = known.ignore_failure and ignore_failure
        self.by_id[container_id] = known


class Creation:
    """What plugins make of a container that is being created.

    Args:
        container: shown to each plugin, and changed for the next one.
    """

    def __init__(self, container: api.Container) -> None:
        self.container = container
        self.container.linux = container.linux or api.LinuxContainer()
        self.owners = Owners()
        self.adjust = api.ContainerAdjustment(
            hooks=api.Hooks(), linux=api.LinuxContainerAdjustment(resources=api.LinuxResources())
        )
        self.updates = Updates(self.owners, forbidden=container.id)
        self.changed = False
        self.adjustments: list[tuple[str, api.ContainerAdjustment]] = []  # by plugin, as it gave them

    def add(self, plugin: str, reply: api.CreateContainerResponse) -> None:
        """Take a plugin's answer. Raises: FailedPrecondition when it contradicts an earlier one."""
        if reply.adjust is not None:
            self.changed = True
            self.adjustments.append((plugin, reply.adjust))
            self._adjust(plugin, reply.adjust)
        self.updates.add(plugin, reply.update)
        self.updates.evictions += reply.evict

    def _claim(self, plugin: str) -> Callable[[Field, str | None], None]:
        def claim(what: Field, key: str | None) -> None:
            self.owners.claim(self.container.id, what, plugin, key)

        return claim

    def _adjust(self, plugin: str, wanted: api.ContainerAdjustment) -> None:
        claim, shown, into = self._claim(plugin), self.container, self.adjust
        self._map(plugin, Field.ANNOTATIONS, wanted.annotations, shown.annotations, into.annotations)
        shown.mounts = self._list(
            plugin, Field.MOUNTS, wanted.mounts, shown.mounts, into.mounts, "destination"
        )
        self._env(plugin, wanted.env)
        if wanted.args:
            self._args(plugin, wanted.args)
        if wanted.hooks is not None:
            self._hooks(plugin, wanted.hooks)
        for limit in wanted.rlimits:
            claim(Field.RLIMITS, limit.type)
            shown.rlimits = [one for one in shown.rlimits if one.type != limit.type] + [limit]
            into.rlimits.append(limit)
        for device in wanted.CDI_devices:
            claim(Field.CDI_DEVICES, device.name)
            into.CDI_devices.append(device)
        if wanted.linux is not None:
            self._linux(plugin, wanted.linux)

    def _linux(self, plugin: str, wanted: api.LinuxContainerAdjustment) -> None:
        claim, shown, into = self._claim(plugin), self.container.linux, self.adjust.linux
        assert shown is not None
        assert into is not None
        assert into.resources is not None
        shown.devices = self._list(plugin, Field.DEVICES, wanted.devices, shown.devices, into.devices, "path")
        shown.namespaces = self._list(
            plugin, Field.NAMESPACE, wanted.namespaces, shown.namespaces, into.namespaces, "type"
        )
        self._map(plugin, Field.SYSCTL, wanted.sysctl, shown.sysctl, into.sysctl)
        self._map(plugin, Field.NET_DEVICES, wanted.net_devices, shown.net_devices, into.net_devices)
        if wanted.resources is not None:
            merge_limits(into.resources, wanted.resources, claim)
            shown.resources = shown.resources or api.LinuxResources()
            merge_limits(shown.resources, wanted.resources, lambda what, key: None)
        for name, what in _LINUX.items():
            value = getattr(wanted, name)
            if value is not None and value != "":
                claim(what, None)
                setattr(into, name, value)
                setattr(shown, name, value)
        if wanted.memory_policy is not None:
            claim(Field.MEMORY_POLICY, None)
            into.memory_policy = wanted.memory_policy
        if wanted.rdt is not None:
            self._rdt(plugin, wanted.rdt, into)

    def _rdt(self, plugin: str, wanted: api.LinuxRdt, into: api.LinuxContainerAdjustment) -> None:
        if wanted.remove:
            for what in _RDT.values():
                self.owners.clear(self.container.id, what, plugin)
            into.rdt = api.LinuxRdt(remove=True)
        into.rdt = into.rdt or api.LinuxRdt()
        for name, what in _RDT.items():
            value = getattr(wanted, name)
            if value is not None:
                self.owners.claim(self.container.id, what, plugin)
                setattr(into.rdt, name, value)

    def _map(
        self,
        plugin: str,
        what: Field,
        wanted: dict[str, Any],
        shown: dict[str, Any],
        into: dict[str, Any],
    ) -> None:
        for key in wanted:
            if (gone := removal(key)) is not None:
                self.owners.clear(self.container.id, what, plugin, gone)
                shown.pop(gone, None)
                into.pop(gone, None)
                into[key] = wanted[key]
        for key, value in wanted.items():
            if removal(key) is None:
                self.owners.claim(self.container.id, what, plugin, key)
                shown[key] = into[key] = value

    def _list(
        self, plugin: str, what: Field, wanted: list[Any], shown: list[Any], into: list[Any], key: str
    ) -> list[Any]:
        """Add `wanted` to `into` in place; return `shown` as it is then."""
        for one in wanted:
            name = getattr(one, key)
            if (gone := removal(name)) is not None:
                self.owners.clear(self.container.id, what, plugin, gone)
                into[:] = [other for other in into if getattr(other, key) not in (gone, name)]
                into.append(one)
                shown = [other for other in shown if getattr(other, key) != gone]
        for one in wanted:
            name = getattr(one, key)
            if removal(name) is None:
                self.owners.claim(self.container.id, what, plugin, name)
                into.append(one)
                shown = [*(other for other in shown if getattr(other, key) != name), one]
        return shown

    def _env(self, plugin: str, wanted: list[api.KeyValue]) -> None:
        shown = [api.KeyValue(*text.partition("=")[::2]) for text in self.container.env]
        shown = self._list(plugin, Field.ENV, wanted, shown, self.adjust.env, "key")
        self.container.env = [f"{one.key}={one.value}" for one in shown]

    def _args(self, plugin: str, wanted: list[str]) -> None:
        if wanted[0] == "":  # takes away what an earlier plugin has set
            self.owners.clear(self.container.id, Field.ARGS, plugin)
            wanted = wanted[1:]
        self.owners.claim(self.container.id, Field.ARGS, plugin)
        self.adjust.args = self.container.args = list(wanted)

    def _hooks(self, plugin: str, wanted: api.Hooks) -> None:
        self.container.hooks = self.container.hooks or api.Hooks()
        for name in _HOOKS:
            hooks = getattr(wanted, name)
            if hooks:
                self.owners.add(self.container.id, Field.OCI_HOOKS, plugin)
                getattr(self.adjust.hooks, name).extend(hooks)
                getattr(self.container.hooks, name).extend(hooks)
