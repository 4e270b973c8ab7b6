"""kubelet's configuration, where there is one: does it agree with noded's?"""

from __future__ import annotations

import re
from collections.abc import Iterator

from noded.checks.facts import Facts
from noded.checks.result import Result, fail, ok, warn

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_SHORTEST_REQUEST_SECONDS = 120.0  # kubelet's default


def seconds(duration: str) -> float | None:
    """A duration as Go writes it, e.g. 2m0s; None for what is none."""
    parts = re.findall(r"([0-9.]+)(ms|us|µs|ns|h|m|s)", duration)
    if not parts or "".join(number + unit for number, unit in parts) != duration:
        return 0.0 if duration == "0" else None
    try:
        return sum(float(number) * _UNITS[unit] for number, unit in parts)
    except ValueError:
        return None


def judge(facts: Facts) -> Iterator[Result]:
    """Endpoint, cgroup driver, request timeout, swap."""
    kubelet = facts.kubelet
    if kubelet.problem:
        yield warn(
            "kubelet.config",
            f"{kubelet.config_path}: {kubelet.problem}",
            "whether kubelet and noded agree is not known",
            f"correct {kubelet.config_path}",
        )
        return
    if not kubelet.config_path and not kubelet.flags and not kubelet.running:
        yield ok("kubelet.config", "no kubelet on this node")
        return
    source = kubelet.config_path or "its command line"
    yield from _endpoint(facts, source)
    driver = kubelet.setting("cgroupDriver", "cgroup-driver")
    if driver and facts.cgroups.driver and driver != facts.cgroups.driver:
        yield fail(
            "kubelet.cgroup_driver",
            f"kubelet has {driver} ({source}), noded {facts.cgroups.driver}",
            "unless kubelet asks noded for it (1.28 and newer), every pod fails with a wrong cgroup parent",
            f"set cgroupDriver: {facts.cgroups.driver} in {source} and restart kubelet",
        )
    else:
        yield ok("kubelet.cgroup_driver", driver or "kubelet asks noded")
    timeout = seconds(kubelet.setting("runtimeRequestTimeout", "runtime-request-timeout") or "2m")
    if timeout is not None and 0 < timeout < _SHORTEST_REQUEST_SECONDS:
        yield warn(
            "kubelet.request_timeout",
            f"runtimeRequestTimeout is {timeout:g} s",
            "kubelet gives up pod starts on a busy node that would have succeeded",
            f"set runtimeRequestTimeout: 2m0s in {source} and restart kubelet",
        )
    else:
        yield ok("kubelet.request_timeout", f"{timeout:g} s" if timeout else "kubelet's default")
    fails_on_swap = kubelet.setting("failSwapOn", "fail-swap-on").lower() != "false"
    if facts.swap_bytes and fails_on_swap:
        yield fail(
            "kubelet.swap",
            f"{facts.swap_bytes >> 20} MiB of swap are on, and failSwapOn is true",
            "kubelet does not start",
            f"swapoff -a and remove swap from /etc/fstab, or set failSwapOn: false in {source}",
        )


def _endpoint(facts: Facts, source: str) -> Iterator[Result]:
    endpoint = facts.kubelet.setting("containerRuntimeEndpoint", "container-runtime-endpoint")
    wanted = facts.daemon.listen
    if not endpoint:
        yield fail(
            "kubelet.endpoint",
            "kubelet is not told where noded listens",
            "kubelet talks to containerd's default socket, or does not start",
            f"set containerRuntimeEndpoint: unix://{wanted} in {source} and restart kubelet",
        )
    elif endpoint.removeprefix("unix://") != wanted:
        yield fail(
            "kubelet.endpoint",
            f"kubelet talks to {endpoint}, noded listens on {wanted}",
            "its pods run in another runtime, or nowhere",
            f"set containerRuntimeEndpoint: unix://{wanted} (kubeadm: also in kubeadm-flags.env and the "
            "node's annotation kubeadm.alpha.kubernetes.io/cri-socket), and restart kubelet",
        )
    else:
        yield ok("kubelet.endpoint", endpoint)
    images = facts.kubelet.setting("imageServiceEndpoint", "image-service-endpoint")
    if images and images.removeprefix("unix://") != wanted:
        yield fail(
            "kubelet.image_endpoint",
            f"kubelet pulls images through {images}",
            "containers cannot be made from images that another runtime has",
            f"remove imageServiceEndpoint from {source} and restart kubelet",
        )
