"""The metrics of pods as protobuf, written by hand: there are some sixty for each container."""

from __future__ import annotations

from collections.abc import Iterator

from noded.edge.cri.metric_families import FAMILIES
from noded.edge.cri.metric_family import Family, Moment
from noded.engine.samples import ContainerDetail, PodDetail
from noded.host.cgroup_detail import CgroupDetail
from noded.host.network_stats import InterfaceStats
from noded.wire.protobuf import number, record, value, varint

_HEADS = {family.name: record(1, family.name.encode()) + number(3, int(family.type)) for family in FAMILIES}
_OF_CGROUP = tuple((family, family.of_cgroup) for family in FAMILIES if family.of_cgroup is not None)
_OF_CONTAINER = tuple((family, family.of_container) for family in FAMILIES if family.of_container is not None)
_OF_NETWORK = tuple((family, family.of_network) for family in FAMILIES if family.of_network is not None)
_POD_CONTAINER = "POD"  # what cAdvisor calls the container that stands for the pod's network


def pod(pod: PodDetail, moment: Moment) -> bytes:
    """A PodSandboxMetrics message."""
    key = pod.view.config.key
    who = (key.namespace, key.name)
    at = number(2, moment.at_ns)
    parts = [record(1, pod.view.id.encode())]
    if pod.detail is not None:
        common = at + _labels("", pod.place, "", "", *who)
        parts.extend(record(2, one) for one in _cgroup_metrics(pod.detail, common))
    if pod.interfaces is not None:
        common = at + _labels(_POD_CONTAINER, pod.place, "", pod.view.id, *who)
        for device in pod.interfaces:
            if device.name != "lo":
                parts.extend(record(2, one) for one in _network_metrics(device, common))
    for one in pod.containers:
        parts.append(record(3, _container(one, moment, at, who)))
    return b"".join(parts)


def _container(one: ContainerDetail, moment: Moment, at: bytes, who: tuple[str, str]) -> bytes:
    config = one.view.config
    image = config.user_specified_image or config.image
    common = at + _labels(config.name, one.place, image, one.view.id, *who)
    parts = [record(1, one.view.id.encode())]
    parts.extend(record(2, metric) for metric in _cgroup_metrics(one.detail, common))
    for family, pick in _OF_CONTAINER:
        for labels, amount in pick(one, moment):
            if amount is not None:
                parts.append(record(2, _metric(family, common, labels, amount)))
    return b"".join(parts)


def _cgroup_metrics(detail: CgroupDetail, common: bytes) -> Iterator[bytes]:
    for family, pick in _OF_CGROUP:
        for labels, amount in pick(detail):
            if amount is not None:
                yield _metric(family, common, labels, amount)


def _network_metrics(device: InterfaceStats, common: bytes) -> Iterator[bytes]:
    for family, pick in _OF_NETWORK:
        yield _metric(family, common, (device.name,), pick(device))


def _metric(family: Family, common: bytes, labels: tuple[str, ...], amount: int) -> bytes:
    own = b"".join(map(_label, labels)) if labels else b""
    return _HEADS[family.name] + common + own + value(5, amount)


def _labels(*values: str) -> bytes:
    return b"".join(map(_label, values))


def _label(text: str) -> bytes:
    data = text.encode("utf-8", "replace")
    return b"\x22" + varint(len(data)) + data  # field 4; an empty label keeps its place
