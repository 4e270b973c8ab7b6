"""What one metric of pods is: its name, its meaning, and where its values come from.

CRI metric values are whole numbers, so what is named `_seconds` is cut to whole seconds. A family
without a value (a controller that is off, a kernel too old) is described, but has no samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from noded.engine.samples import ContainerDetail, Filesystem
from noded.host.cgroup_detail import CgroupDetail
from noded.host.network_stats import InterfaceStats
from noded.proto.runtime import v1

COUNTER, GAUGE = v1.MetricType.COUNTER, v1.MetricType.GAUGE
NS = 1_000_000_000

Values = Iterable[tuple[tuple[str, ...], int | None]]


@dataclass(frozen=True, slots=True)
class Moment:
    """What the metrics of one answer have in common."""

    at_ns: int
    filesystem: Filesystem | None


@dataclass(frozen=True, slots=True)
class Family:
    """One metric name.

    Args:
        labels: beside those that every metric has.
        of_cgroup: values from a cgroup alone; given for pods too.
        of_container: values from a container.
        of_network: values of a pod from its devices.
    """

    name: str
    help: str
    type: v1.MetricType
    labels: tuple[str, ...] = ()
    of_cgroup: Callable[[CgroupDetail], Values] | None = None
    of_container: Callable[[ContainerDetail, Moment], Values] | None = None
    of_network: Callable[[InterfaceStats], int] | None = None
