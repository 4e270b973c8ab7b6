"""Values for the capabilities that a network's plugins declare, and the CNI_ARGS. Pure.

Capabilities are the CNI conventions' way to hand run-time facts to plugins: the runtime passes
`runtimeConfig.NAME` only to plugins whose configuration says `"capabilities": {"NAME": true}`.

| capability | source | form |
|---|---|---|
| portMappings | port_mappings with a host port | [{hostPort, containerPort, protocol, hostIP}] |
| bandwidth | annotations kubernetes.io/ingress-bandwidth, egress-bandwidth | bits/s and bits |
| dns | dns_config | {servers, searches, options} |
| ipRanges | the node's pod CIDRs | [[{subnet}], ...], one set per address family |
| mac, ips | annotations network.noded/mac, network.noded/ips | "02:...", ["10.1.2.3"] |
| cgroupPath | the pod's cgroup | path |
| io.kubernetes.cri.pod-annotations | annotations | the map |

`mac` and `ips` let a pod choose its address, so they act only where the operator's configuration
declares them. Spec: https://www.cni.dev/docs/conventions/.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from noded.errors import InvalidArgument
from noded.model.pod import PodConfig, PortProtocol
from noded.model.quantity import parse_quantity

INGRESS_ANNOTATION = "kubernetes.io/ingress-bandwidth"
EGRESS_ANNOTATION = "kubernetes.io/egress-bandwidth"
MAC_ANNOTATION = "network.noded/mac"
IPS_ANNOTATION = "network.noded/ips"

# Bits per second; Kubernetes refuses rates outside (k8s.io/kubernetes/pkg/util/bandwidth).
_LEAST_RATE = 1_000
_GREATEST_RATE = 10**15

# Bits. The peers pass this burst, which means "do not shape short transfers".
_BURST = 2**32 - 1
# The kernel's token bucket counts the time of a burst in 64 ns ticks of 32 bits, 274 s at most; a
# greater burst wraps around to an arbitrary small one.
_LONGEST_BURST_SECONDS = 256

_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}", re.ASCII)


@dataclass(frozen=True, slots=True)
class PodFacts:
    """Where the values come from: the pod, its cgroup path and the node's pod CIDRs."""

    pod: PodConfig
    cgroup_path: str = ""
    pod_cidrs: tuple[str, ...] = ()


def capability_args(declared: frozenset[str], facts: PodFacts) -> dict[str, Any]:
    """Return the values of the declared capabilities that have one for this pod.

    Raises: InvalidArgument naming the annotation or field that cannot be honoured.
    """
    values = {name: source(facts) for name, source in _SOURCES.items() if name in declared}
    return {name: value for name, value in values.items() if value}


def cni_args(sandbox_id: str, pod: PodConfig) -> tuple[tuple[str, str], ...]:
    """Return the CNI_ARGS, in the order both peers pass them.

    Raises: InvalidArgument when a value cannot be written as KEY=VALUE;KEY=VALUE.
    """
    args = (
        ("IgnoreUnknown", "1"),
        ("K8S_POD_NAMESPACE", pod.key.namespace),
        ("K8S_POD_NAME", pod.key.name),
        ("K8S_POD_INFRA_CONTAINER_ID", sandbox_id),
        ("K8S_POD_UID", pod.key.uid),
    )
    for key, value in args:
        if ";" in value or "=" in value or "\0" in value:
            raise InvalidArgument(
                f"config.metadata: {value!r} cannot be passed to CNI plugins as {key}: no ';' or '='"
            )
    return args


def _port_mappings(facts: PodFacts) -> list[dict[str, Any]]:
    mappings = []
    for mapping in facts.pod.port_mappings:
        if mapping.host_port <= 0:
            continue
        entry: dict[str, Any] = {
            "hostPort": mapping.host_port,
            "containerPort": mapping.container_port,
            "protocol": PortProtocol(mapping.protocol).name.lower(),
        }
        if mapping.host_ip:
            entry["hostIP"] = mapping.host_ip
        mappings.append(entry)
    return mappings


def _bandwidth(facts: PodFacts) -> dict[str, int]:
    values: dict[str, int] = {}
    for direction, annotation in (("ingress", INGRESS_ANNOTATION), ("egress", EGRESS_ANNOTATION)):
        text = facts.pod.annotations.get(annotation)
        if not text:
            continue
        try:
            rate = parse_quantity(text)
        except InvalidArgument as error:
            raise InvalidArgument(f"annotation {annotation}: {error}") from None
        if not _LEAST_RATE <= rate <= _GREATEST_RATE:
            raise InvalidArgument(f"annotation {annotation}: {text} is outside 1k to 1P bits per second")
        values[f"{direction}Rate"] = rate
        values[f"{direction}Burst"] = min(_BURST, rate * _LONGEST_BURST_SECONDS)
    return values


def _dns(facts: PodFacts) -> dict[str, list[str]]:
    dns = facts.pod.dns
    if dns is None:
        return {}
    lists = {"servers": dns.servers, "searches": dns.searches, "options": dns.options}
    return {key: list(values) for key, values in lists.items() if values}


def _ip_ranges(facts: PodFacts) -> list[list[dict[str, str]]]:
    # A plugin takes one address from each set, so the CIDRs of one family share a set.
    families: dict[int, list[dict[str, str]]] = {}
    for cidr in facts.pod_cidrs:
        families.setdefault(ipaddress.ip_network(cidr).version, []).append({"subnet": cidr})
    return list(families.values())


def _mac(facts: PodFacts) -> str:
    text = facts.pod.annotations.get(MAC_ANNOTATION, "")
    if text and not _MAC.fullmatch(text):
        raise InvalidArgument(
            f"annotation {MAC_ANNOTATION}: {text!r} is not a MAC address like 02:00:00:00:00:01"
        )
    return text


def _ips(facts: PodFacts) -> list[str]:
    text = facts.pod.annotations.get(IPS_ANNOTATION, "")
    addresses = [item.strip() for item in text.split(",") if item.strip()]
    for address in addresses:
        try:
            ipaddress.ip_interface(address)
        except ValueError:
            raise InvalidArgument(f"annotation {IPS_ANNOTATION}: {address!r} is not an IP address") from None
    return addresses


def _cgroup_path(facts: PodFacts) -> str:
    return facts.cgroup_path


def _annotations(facts: PodFacts) -> dict[str, str]:
    return dict(facts.pod.annotations)


_SOURCES: Mapping[str, Callable[[PodFacts], Any]] = {
    "portMappings": _port_mappings,
    "bandwidth": _bandwidth,
    "dns": _dns,
    "ipRanges": _ip_ranges,
    "mac": _mac,
    "ips": _ips,
    "cgroupPath": _cgroup_path,
    "io.kubernetes.cri.pod-annotations": _annotations,
}
