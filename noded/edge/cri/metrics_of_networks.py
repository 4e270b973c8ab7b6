"""The metrics of pods' network devices."""

from __future__ import annotations

from collections.abc import Callable

from noded.edge.cri.metric_family import COUNTER, Family
from noded.host.network_stats import InterfaceStats


def _network(name: str, help_: str, pick: Callable[[InterfaceStats], int]) -> Family:
    return Family(name, help_, COUNTER, ("interface",), of_network=pick)


OF_NETWORKS: tuple[Family, ...] = (
    _network(
        "container_network_receive_bytes_total", "Bytes received by the pod's device.", lambda i: i.rx_bytes
    ),
    _network(
        "container_network_receive_errors_total",
        "Errors while receiving on the pod's device.",
        lambda i: i.rx_errors,
    ),
    _network(
        "container_network_receive_packets_dropped_total",
        "Packets dropped while receiving on the pod's device.",
        lambda i: i.rx_dropped,
    ),
    _network(
        "container_network_receive_packets_total",
        "Packets received by the pod's device.",
        lambda i: i.rx_packets,
    ),
    _network(
        "container_network_transmit_bytes_total", "Bytes sent by the pod's device.", lambda i: i.tx_bytes
    ),
    _network(
        "container_network_transmit_errors_total",
        "Errors while sending on the pod's device.",
        lambda i: i.tx_errors,
    ),
    _network(
        "container_network_transmit_packets_dropped_total",
        "Packets dropped while sending on the pod's device.",
        lambda i: i.tx_dropped,
    ),
    _network(
        "container_network_transmit_packets_total",
        "Packets sent by the pod's device.",
        lambda i: i.tx_packets,
    ),
)
