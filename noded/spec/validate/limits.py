"""Checks of `LinuxContainerResources`."""

from __future__ import annotations

import re

from noded.errors import FailedPrecondition, InvalidArgument
from noded.model.host import HostFacts
from noded.model.pod import Resources
from noded.spec.resources import supports_unified

_CPUSET = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*")
_PAGE_SIZE = re.compile(r"[1-9]\d*(KB|MB|GB)")
_PERIOD_US = (1_000, 1_000_000)  # Documentation/scheduler/sched-bwc.rst
_QUOTA_US = 1_000
_OOM = 1_000


def check_resources(
    resources: Resources, host: HostFacts, field: str, *, minimum_memory_bytes: int = 0
) -> None:
    """Raises: InvalidArgument naming the CRI field, FailedPrecondition for what needs cgroup v2."""
    low, high = _PERIOD_US
    if resources.cpu_period_us and not low <= resources.cpu_period_us <= high:
        raise InvalidArgument(
            f"{field}.cpu_period: {resources.cpu_period_us} is not within {low} to {high} us"
        )
    if 0 < resources.cpu_quota_us < _QUOTA_US or resources.cpu_quota_us < -1:
        raise InvalidArgument(
            f"{field}.cpu_quota: {resources.cpu_quota_us} is neither -1 nor at least {_QUOTA_US} us"
        )
    if resources.cpu_shares < 0:
        raise InvalidArgument(f"{field}.cpu_shares: {resources.cpu_shares} is negative")
    _check_memory(resources, field, minimum_memory_bytes)
    if not -_OOM <= resources.oom_score_adj <= _OOM:
        raise InvalidArgument(f"{field}.oom_score_adj: {resources.oom_score_adj} is not within -1000 to 1000")
    for name, value in (("cpuset_cpus", resources.cpuset_cpus), ("cpuset_mems", resources.cpuset_mems)):
        if value and not _CPUSET.fullmatch(value):
            raise InvalidArgument(f"{field}.{name}: {value!r} is not a list like 0-3,7")
    for limit in resources.hugepage_limits:
        if not _PAGE_SIZE.fullmatch(limit.page_size):
            raise InvalidArgument(f"{field}.hugepage_limits: page size {limit.page_size!r} is not like 2MB")
        if limit.limit_bytes < 0:
            raise InvalidArgument(f"{field}.hugepage_limits: {limit.limit_bytes} is negative")
    _check_unified(resources, host, field)


def _check_memory(resources: Resources, field: str, minimum: int) -> None:
    limit, swap = resources.memory_limit_bytes, resources.memory_swap_limit_bytes
    if limit < -1:
        raise InvalidArgument(f"{field}.memory_limit_in_bytes: {limit} is neither -1 nor positive")
    if 0 < limit < minimum:
        raise InvalidArgument(
            f"{field}.memory_limit_in_bytes: {limit} is below {minimum}, the least a container can start with"
        )
    if swap < -1 or (swap > 0 and (limit == -1 or swap < limit)):
        raise InvalidArgument(
            f"{field}.memory_swap_limit_in_bytes: {swap} counts memory and swap together, so it must be at "
            f"least memory_limit_in_bytes ({limit}), or -1"
        )


def _check_unified(resources: Resources, host: HostFacts, field: str) -> None:
    if not resources.unified:
        return
    for key in resources.unified:
        if "/" in key or "\0" in key or "." not in key.strip("."):
            raise InvalidArgument(f"{field}.unified: {key!r} is not the name of a cgroup file")
    if not supports_unified(host):
        keys = ", ".join(sorted(resources.unified))
        raise FailedPrecondition(
            f"{field}.unified: {keys} need cgroup v2, this node has cgroup {host.cgroup_mode.value}"
        )
