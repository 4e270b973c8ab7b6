"""All metrics of pods, with the names that cAdvisor made known."""

from __future__ import annotations

from noded.edge.cri.metric_family import Family
from noded.edge.cri.metrics_of_cgroups import OF_CGROUPS
from noded.edge.cri.metrics_of_containers import OF_CONTAINERS
from noded.edge.cri.metrics_of_networks import OF_NETWORKS
from noded.proto.runtime import v1

# Every metric has these, in this order; families add their own behind.
BASE_LABELS = ("container", "id", "image", "name", "namespace", "pod")

FAMILIES: tuple[Family, ...] = tuple(
    sorted((*OF_CGROUPS, *OF_CONTAINERS, *OF_NETWORKS), key=lambda family: family.name)
)


def descriptors() -> list[v1.MetricDescriptor]:
    """All families, for ListMetricDescriptors."""
    return [
        v1.MetricDescriptor(name=family.name, help=family.help, label_keys=[*BASE_LABELS, *family.labels])
        for family in FAMILIES
    ]
