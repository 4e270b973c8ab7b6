"""Who set what: two plugins must not set the same thing. Pure."""

from __future__ import annotations

from enum import IntEnum

from noded.errors import FailedPrecondition
from noded.proto.nri.pkg.api import v1alpha1 as api

_CLEARED = "-"  # in front of the name of a plugin that took away what another had set


class Field(IntEnum):
    """What can be owned; the numbers are those that validating plugins are told."""

    ANNOTATIONS = 1
    MOUNTS = 2
    OCI_HOOKS = 3
    DEVICES = 4
    CDI_DEVICES = 5
    ENV = 6
    ARGS = 7
    MEM_LIMIT = 8
    MEM_RESERVATION = 9
    MEM_SWAP_LIMIT = 10
    MEM_KERNEL_LIMIT = 11
    MEM_TCP_LIMIT = 12
    MEM_SWAPPINESS = 13
    MEM_DISABLE_OOM_KILLER = 14
    MEM_USE_HIERARCHY = 15
    CPU_SHARES = 16
    CPU_QUOTA = 17
    CPU_PERIOD = 18
    CPU_REALTIME_RUNTIME = 19
    CPU_REALTIME_PERIOD = 20
    CPUSET_CPUS = 21
    CPUSET_MEMS = 22
    PIDS_LIMIT = 23
    HUGEPAGE_LIMITS = 24
    BLOCKIO_CLASS = 25
    RDT_CLASS = 26
    CGROUPS_UNIFIED = 27
    CGROUPS_PATH = 28
    OOM_SCORE_ADJ = 29
    RLIMITS = 30
    IO_PRIORITY = 31
    SECCOMP_POLICY = 32
    NAMESPACE = 33
    SYSCTL = 34
    NET_DEVICES = 35
    SCHEDULER = 36
    RDT_CLOS_ID = 37
    RDT_SCHEMATA = 38
    RDT_MONITORING = 39
    MEMORY_POLICY = 40


class Owners:
    """The claims of one request, by container, field and, where a field has many entries, key."""

    def __init__(self) -> None:
        self._owners: dict[tuple[str, Field, str | None], str] = {}

    def claim(self, container_id: str, field: Field, plugin: str, key: str | None = None) -> None:
        """Note that `plugin` sets this.

        Raises: FailedPrecondition naming both plugins when it is set already.
        """
        place = (container_id, field, key)
        other = self._owners.get(place, "")
        if other and other != _CLEARED + plugin:
            what = field.name.lower() + (f" {key!r}" if key is not None else "")
            raise FailedPrecondition(
                f"NRI plugins {other.removeprefix(_CLEARED)} and {plugin} both set {what} of container "
                f"{container_id[:12]}: change the configuration of one"
            )
        self._owners[place] = plugin

    def clear(self, container_id: str, field: Field, plugin: str, key: str | None = None) -> None:
        """Note that `plugin` took away what was set; only it may set this again."""
        self._owners[(container_id, field, key)] = _CLEARED + plugin

    def add(self, container_id: str, field: Field, plugin: str) -> None:
        """Note that `plugin` is one of those that contribute to this."""
        place = (container_id, field, None)
        others = self._owners.get(place, "")
        if plugin not in others.split(","):
            self._owners[place] = f"{others},{plugin}" if others else plugin

    def message(self) -> api.OwningPlugins:
        """All claims for validating plugins."""
        message = api.OwningPlugins()
        for (container_id, field, key), plugin in self._owners.items():
            if plugin.startswith(_CLEARED):
                continue
            fields = message.owners.setdefault(container_id, api.FieldOwners())
            if key is None:
                fields.simple[int(field)] = plugin
            else:
                compound = fields.compound.setdefault(int(field), api.CompoundFieldOwners())
                compound.owners[key] = plugin
        return message
