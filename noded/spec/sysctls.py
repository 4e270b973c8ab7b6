"""Which sysctls belong to a pod's own namespaces (sysctl(8); namespaces(7), network_namespaces(7))."""

from __future__ import annotations

from collections.abc import Mapping

from noded.errors import InvalidArgument
from noded.model.pod import PodConfig

_FIELD = "linux.sysctls"
_IPC = frozenset(
    {
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.msg_next_id",
        "kernel.auto_msgmni",
        "kernel.sem",
        "kernel.sem_next_id",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_next_id",
        "kernel.shm_rmid_forced",
    }
)
_IPC_TREE = "fs.mqueue."
_NETWORK_TREE = "net."


def canonical(name: str) -> str:
    """`net/ipv4/conf/eth0.100/forwarding` and `net.ipv4.ip_forward` as a path below /proc/sys.

    The first separator decides which form a name has (sysctl.d(5)): with ".", a "/" stands for a
    dot within a component.
    """
    dot, slash = name.find("."), name.find("/")
    if dot == -1 or (slash != -1 and slash < dot):
        return name
    return name.translate(str.maketrans("./", "/."))


def pod_sysctls(
    of_node: Mapping[str, str], of_handler: Mapping[str, str], pod: PodConfig
) -> Mapping[str, str]:
    """What is written in a pod's namespaces: the node's defaults, its handler's, its own word."""
    return {**of_node, **of_handler, **pod.sysctls}


def check_sysctls(sysctls: Mapping[str, str], *, host_network: bool, host_ipc: bool) -> None:
    """Refuse sysctls that would change the node.

    Raises: InvalidArgument naming the sysctl and what it would change.
    """
    for name, value in sysctls.items():
        path = canonical(name)
        parts = path.split("/")
        if len(parts) < 2 or any(part in ("", ".", "..") for part in parts) or "\0" in path + value:
            raise InvalidArgument(f"{_FIELD}: {name!r} is not the name of a sysctl")
        dotted = ".".join(parts)
        if dotted in _IPC or dotted.startswith(_IPC_TREE):
            if host_ipc:
                raise InvalidArgument(
                    f"{_FIELD}: {name!r} would change the node, the pod uses its IPC namespace"
                )
        elif dotted.startswith(_NETWORK_TREE):
            if host_network:
                raise InvalidArgument(f"{_FIELD}: {name!r} would change the node, the pod uses its network")
        else:
            raise InvalidArgument(
                f"{_FIELD}: {name!r} is not namespaced, it would change the whole node; only net.*, "
                f"fs.mqueue.* and the kernel.sem, kernel.msg* and kernel.shm* ones belong to a pod"
            )
