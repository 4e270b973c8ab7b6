"""What a pod's annotations and its workload change in the request and the policy of one container."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from noded.config import WorkloadConfig
from noded.model.container import ContainerConfig
from noded.model.host import HostFacts
from noded.spec.cpu_tuning import cpu_tuning, whole_cpus
from noded.spec.features import container_features, with_features
from noded.spec.inputs import SpecPolicy
from noded.spec.workloads import with_workload, workload_of, workload_resources


@dataclass(frozen=True, slots=True)
class Granted:
    """Request and policy as if they had said what the annotations say.

    Args:
        fips_disabled: the container does not see that the node is in FIPS mode.
        refused: what could not be granted, one sentence each.
    """

    container: ContainerConfig
    policy: SpecPolicy
    fips_disabled: bool = False
    refused: tuple[str, ...] = ()


def granted(
    annotations: Mapping[str, str],
    container: ContainerConfig,
    policy: SpecPolicy,
    host: HostFacts,
    *,
    workloads: Mapping[str, WorkloadConfig],
    allowed_devices: tuple[str, ...],
    shared_cpuset: str,
) -> Granted:
    """Grant what `policy.allowed_annotations` allow.

    Args:
        annotations: of the pod.
        workloads: the kinds of pods that the configuration defines.
        allowed_devices: host paths that an annotation may name.
        shared_cpuset: the node's shared CPUs, "" = there are none.

    Raises: InvalidArgument naming an annotation with a bad value, FailedPrecondition for what cannot be had.
    """
    workload = workload_of(workloads, annotations) if workloads else None
    if workload is not None:
        given = workload_resources(workload, annotations, container.name)
        container = replace(container, resources=with_workload(container.resources, given))
    tuning = cpu_tuning(annotations, container.name, policy.allowed_annotations)
    if not tuning.quota and container.resources is not None and whole_cpus(container.resources):
        # None instead of -1, which crun 1.8.1 cannot write; new cgroups have no limit.
        container = replace(container, resources=replace(container.resources, cpu_quota_us=0))
    found = container_features(annotations, container.name, policy.allowed_annotations, allowed_devices)
    container, policy, refused = with_features(container, policy, found, host, shared_cpuset)
    return Granted(container, policy, found.fips_disabled, refused)
