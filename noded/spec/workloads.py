"""Workloads: kinds of pods that an administrator defines, and a pod belongs to by an annotation.

A workload gives containers CPU resources that the kubelet knows nothing of, and allows more annotations
(crio.conf(5), "CRIO.RUNTIME.WORKLOADS TABLE").
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping

from noded.config import WorkloadConfig, WorkloadResources
from noded.errors import InvalidArgument
from noded.model.pod import Resources
from noded.settings import check_workload_resources

_NAMES = tuple(field.name for field in dataclasses.fields(WorkloadResources))
_DEFAULT_PERIOD_US = 100_000
_MILLI = 1000
_LEAST_QUOTA_US = 1000  # of the kernel
_NUMBER = re.compile(r"[0-9]{1,18}", re.ASCII)


def workload_of(
    workloads: Mapping[str, WorkloadConfig], annotations: Mapping[str, str]
) -> WorkloadConfig | None:
    """The workload that a pod belongs to: the first by name whose annotation it has, of whatever value."""
    for name in sorted(workloads):
        if workloads[name].activation_annotation in annotations:
            return workloads[name]
    return None


def workload_resources(
    workload: WorkloadConfig, annotations: Mapping[str, str], container: str
) -> WorkloadResources:
    """What a container of the workload gets.

    The pod overrides single resources by `PREFIX/CONTAINER` = a JSON object, or `PREFIX.RESOURCE/CONTAINER`.

    Raises: InvalidArgument naming the annotation.
    """
    prefix, resources = workload.annotation_prefix, workload.resources
    if not prefix:
        return resources
    key = f"{prefix}/{container}"
    if key in annotations:
        resources = _overridden(resources, _object(annotations[key], key), f"annotation {key}")
    for name in _NAMES:
        key = f"{prefix}.{name}/{container}"
        if key in annotations:
            resources = _overridden(resources, {name: annotations[key]}, f"annotation {key}")
    return resources


def with_workload(resources: Resources | None, given: WorkloadResources) -> Resources | None:
    """The request's resources with those of the workload over them."""
    if given == WorkloadResources():
        return resources
    current = resources or Resources()
    period = given.cpuperiod or current.cpu_period_us
    quota = given.cpuquota or current.cpu_quota_us
    if given.cpulimit:
        period = period or _DEFAULT_PERIOD_US
        quota = max(given.cpulimit * period // _MILLI, _LEAST_QUOTA_US)
    return dataclasses.replace(
        current,
        cpu_shares=given.cpushares or current.cpu_shares,
        cpu_quota_us=quota,
        cpu_period_us=period,
        cpuset_cpus=given.cpuset or current.cpuset_cpus,
    )


def _overridden(resources: WorkloadResources, changes: Mapping[str, object], where: str) -> WorkloadResources:
    values: dict[str, int | str] = {}
    for name, value in changes.items():
        if name not in _NAMES:
            raise InvalidArgument(f"{where}: unknown resource {name!r}; there are {', '.join(_NAMES)}")
        text = str(value).strip()
        if isinstance(value, bool) or (name != "cpuset" and not _NUMBER.fullmatch(text)):
            raise InvalidArgument(f"{where}: {name} is {value!r}, not a number from 0")
        if name == "cpuset":
            values[name] = text
        elif int(text):  # 0 leaves the workload's own
            values[name] = int(text)
    if not values.get("cpuset", "x"):
        del values["cpuset"]
    changed = dataclasses.replace(resources, **values)  # type: ignore[arg-type] # `_NAMES` are its fields
    check_workload_resources(changed, where)
    return changed


def _object(text: str, key: str) -> Mapping[str, object]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"annotation {key}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidArgument(f"annotation {key}: {text!r} is not a JSON object")
    return value
