"""kubelet's configuration, where there is one: does it agree with noded's?"""

from __future__ import annotations

from collections.abc import Iterator

from noded.checks.facts import Facts
from noded.checks.result import Result, fail, ok, warn
from noded.wire.go_duration import seconds

_SHORTEST_REQUEST_SECONDS = 120.0  # kubelet's default


def judge(facts: Facts) -> Iterator[Result]:
    """Endpoint, cgroup driver, request timeout, swap."""
    kubelet = facts.kubelet
    if kubelet.problem:
        yield warn(
            "kubelet.config",
            f"{kubelet.problem_path}: {kubelet.problem}",
            "whether kubelet and noded agree is not known",
            f"correct {kubelet.problem_path}",
        )
        return
    if not kubelet.config_path and not kubelet.flags and not kubelet.running:
        yield ok("kubelet.config", "no kubelet on this node")
        return
    yield from _endpoint(facts)
    driver = kubelet.setting("cgroupDriver", "cgroup-driver")
    source = kubelet.place("cgroupDriver", "cgroup-driver")
    if driver and facts.cgroups.driver and driver != facts.cgroups.driver:
        yield fail(
            "kubelet.cgroup_driver",
            f"kubelet has {driver} ({source}), noded {facts.cgroups.driver}",
            "unless kubelet asks noded for it (1.28 and newer), every pod fails with a wrong cgroup parent",
            kubelet.cure("cgroupDriver", "cgroup-driver", facts.cgroups.driver),
        )
    else:
        yield ok("kubelet.cgroup_driver", driver or "kubelet asks noded")
    timeout = seconds(kubelet.setting("runtimeRequestTimeout", "runtime-request-timeout") or "2m")
    if timeout is not None and 0 < timeout < _SHORTEST_REQUEST_SECONDS:
        yield warn(
            "kubelet.request_timeout",
            f"runtimeRequestTimeout is {timeout:g} s",
            "kubelet gives up pod starts on a busy node that would have succeeded",
            kubelet.cure("runtimeRequestTimeout", "runtime-request-timeout", "2m0s"),
        )
    else:
        yield ok("kubelet.request_timeout", f"{timeout:g} s" if timeout else "kubelet's default")
    fails_on_swap = kubelet.setting("failSwapOn", "fail-swap-on").lower() != "false"
    if facts.swap_bytes and fails_on_swap:
        yield fail(
            "kubelet.swap",
            f"{facts.swap_bytes >> 20} MiB of swap are on, and failSwapOn is true",
            "kubelet does not start",
            "swapoff -a and remove swap from /etc/fstab, or "
            + kubelet.cure("failSwapOn", "fail-swap-on", "false"),
        )


def _endpoint(facts: Facts) -> Iterator[Result]:
    names = ("containerRuntimeEndpoint", "container-runtime-endpoint")
    endpoint = facts.kubelet.setting(*names)
    wanted = facts.daemon.listen
    cure = facts.kubelet.cure(*names, f"unix://{wanted}")
    if not endpoint:
        yield fail(
            "kubelet.endpoint",
            "kubelet is not told where noded listens",
            "kubelet talks to containerd's default socket, or does not start",
            cure,
        )
    elif endpoint.removeprefix("unix://") != wanted:
        yield fail(
            "kubelet.endpoint",
            f"kubelet talks to {endpoint}, noded listens on {wanted}",
            "its pods run in another runtime, or nowhere",
            f"{cure} (kubeadm: also the node's annotation kubeadm.alpha.kubernetes.io/cri-socket)",
        )
    else:
        yield ok("kubelet.endpoint", endpoint)
    images = facts.kubelet.setting("imageServiceEndpoint", "image-service-endpoint")
    if images and images.removeprefix("unix://") != wanted:
        yield fail(
            "kubelet.image_endpoint",
            f"kubelet pulls images through {images}",
            "containers cannot be made from images that another runtime has",
            "remove imageServiceEndpoint from "
            + f"{facts.kubelet.place('imageServiceEndpoint', 'image-service-endpoint')} and restart kubelet",
        )
