"""The pod network: CNI configuration and plugins."""

from __future__ import annotations

from collections.abc import Iterator

from noded.checks.facts import Facts
from noded.checks.result import Result, fail, ok, warn


def judge(facts: Facts) -> Iterator[Result]:
    """Whether a network is chosen and all its plugins are there."""
    network = facts.network
    if not network.chosen:
        yield fail(
            "network.config",
            network.message,
            "NetworkReady is false: only pods with hostNetwork run, the node stays NotReady",
            "install your cluster's network add-on; for a single node: "
            f"cp /usr/share/doc/noded/examples/10-noded-bridge.conflist {network.conf_dir}/",
        )
        return
    if network.message:
        yield warn(
            "network.config",
            network.message,
            f"the network {network.chosen} of {network.source} is used without them",
            f"correct or remove the files in {network.conf_dir}",
        )
    else:
        yield ok("network.config", f"{network.chosen} ({network.source})")
    if network.missing:
        yield fail(
            "network.plugins",
            f"no program for {', '.join(network.missing)} in {', '.join(network.bin_dirs)}",
            f"the network {network.chosen} needs it: no pod gets an address",
            "apt-get install containernetworking-plugins  (or: dnf install containernetworking-plugins), or "
            "add the directory to [network] bin_dirs",
        )
    else:
        yield ok("network.plugins", ", ".join(network.types))
    if "portMappings" not in network.capabilities:
        yield warn(
            "network.host_ports",
            f"no plugin of {network.chosen} has the capability portMappings",
            "hostPort of pods does not work",
            'add {"type": "portmap", "capabilities": {"portMappings": true}} to its plugins',
        )
    else:
        yield ok("network.host_ports", "portMappings")
