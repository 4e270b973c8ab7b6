"""The kernel: what every pod needs of it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from noded.checks.facts import Facts
from noded.checks.result import Result, fail, ok, warn

_OLDEST = (5, 10)
_IDMAPPED_OVERLAY = (5, 19)
_NAMESPACES = frozenset({"ipc", "mnt", "net", "pid", "uts"})


def judge(facts: Facts) -> Iterator[Result]:
    """Version, namespaces, overlayfs, seccomp, packet filter, forwarding, mount propagation."""
    kernel = facts.kernel
    match = re.match(r"(\d+)\.(\d+)", kernel.release)
    version = (int(match[1]), int(match[2])) if match else (0, 0)
    if version < _OLDEST:
        yield fail(
            "kernel.version",
            f"Linux {kernel.release}",
            "noded needs Linux 5.10: older ones lack mount and process interfaces that it uses",
            "install a newer kernel and reboot",
        )
    elif version < _IDMAPPED_OVERLAY:
        yield warn(
            "kernel.version",
            f"Linux {kernel.release}",
            "pods with user namespaces (hostUsers: false) need Linux 5.19; all others run",
            "install Linux 5.19 or newer if you want them",
        )
    else:
        yield ok("kernel.version", f"Linux {kernel.release}")
    if missing := sorted(_NAMESPACES - kernel.namespaces):
        yield fail(
            "kernel.namespaces",
            f"no {', '.join(missing)} namespaces",
            "each pod has namespaces of its own",
            "use a kernel with CONFIG_NAMESPACES and CONFIG_*_NS",
        )
    else:
        yield ok("kernel.namespaces", ", ".join(sorted(kernel.namespaces)))
    if "user" not in kernel.namespaces or kernel.sysctls.get("user.max_user_namespaces") == "0":
        yield warn(
            "kernel.user_namespaces",
            "user namespaces are off",
            "pods with hostUsers: false are refused",
            "sysctl -w user.max_user_namespaces=65536",
        )
    if "overlay" in kernel.filesystems:
        yield ok("kernel.overlay", "overlayfs is there")
    else:
        yield fail(
            "kernel.overlay",
            "overlayfs is not loaded",
            "the root file systems of containers are overlay mounts",
            "modprobe overlay; echo overlay >/etc/modules-load.d/noded.conf",
        )
    yield from _seccomp(facts)
    yield from _packets(facts)
    if kernel.root_propagation == "shared":
        yield ok("kernel.propagation", "/ is a shared mount")
    else:
        yield warn(
            "kernel.propagation",
            f"/ is a {kernel.root_propagation} mount",
            "volumes that CSI drivers mount in a container (mountPropagation: Bidirectional) do not reach "
            "other pods",
            "mount --make-rshared /",
        )


def _seccomp(facts: Facts) -> Iterator[Result]:
    actions = facts.kernel.seccomp_actions
    if not {"errno", "allow"} <= actions:
        yield fail(
            "kernel.seccomp",
            "the kernel has no seccomp filters",
            "pods with seccompProfile RuntimeDefault, which most clusters demand, cannot run",
            "use a kernel with CONFIG_SECCOMP_FILTER",
        )
    elif "log" not in actions:
        yield warn(
            "kernel.seccomp",
            "seccomp cannot log",
            "profiles with SCMP_ACT_LOG are refused",
            "use Linux 4.14 or newer with CONFIG_SECCOMP_FILTER",
        )
    else:
        yield ok("kernel.seccomp", "filters and logging")


def _packets(facts: Facts) -> Iterator[Result]:
    kernel = facts.kernel
    forwarding = kernel.sysctls.get("net.ipv4.ip_forward")
    if forwarding == "1":
        yield ok("kernel.ip_forward", "IPv4 packets are forwarded")
    else:
        yield fail(
            "kernel.ip_forward",
            f"net.ipv4.ip_forward is {forwarding or 'missing'}",
            "the node drops what pods send to other nodes and to services",
            "echo net.ipv4.ip_forward=1 >>/etc/sysctl.d/90-noded.conf; sysctl --system",
        )
    bridged = kernel.sysctls.get("net.bridge.bridge-nf-call-iptables")
    bridge = "bridge" in facts.network.types
    if bridged is None and bridge:
        yield warn(
            "kernel.br_netfilter",
            "br_netfilter is not loaded",
            "service addresses do not work between pods on the same bridge: kube-proxy's rules are not asked",
            "modprobe br_netfilter; echo br_netfilter >/etc/modules-load.d/br_netfilter.conf",
        )
    elif bridged == "0":
        yield warn(
            "kernel.br_netfilter",
            "net.bridge.bridge-nf-call-iptables is 0",
            "kube-proxy's rules are not asked for packets between pods on the same bridge",
            "echo net.bridge.bridge-nf-call-iptables=1 >>/etc/sysctl.d/90-noded.conf; sysctl --system",
        )
    else:
        yield ok("kernel.br_netfilter", "bridged packets are filtered" if bridged else "no bridge is in use")
    needs = {"portmap", "bridge", "firewall"} & set(facts.network.types)
    if kernel.firewall:
        yield ok("kernel.firewall", ", ".join(sorted(kernel.firewall)))
    elif needs:
        yield fail(
            "kernel.firewall",
            "neither iptables nor nft is installed",
            f"the CNI plugins {', '.join(sorted(needs))} call it for addresses and host ports",
            "apt-get install iptables  (or: dnf install iptables-nft)",
        )
    else:
        yield warn(
            "kernel.firewall",
            "neither iptables nor nft is installed",
            "kube-proxy and most network add-ons call one of them",
            "apt-get install iptables  (or: dnf install iptables-nft)",
        )
