"""A pod network of the demo's own: a bridge and a subnet that nothing else on the host uses."""

from __future__ import annotations

import fcntl
import ipaddress
import json
import random
import socket
import struct
from pathlib import Path

from noded.errors import ResourceExhausted

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _SIOCBRDELBR = 0x8913, 0x8914, 0x89A1  # <linux/sockios.h>
_IFF_UP = 1
_IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")


def choose_subnet() -> ipaddress.IPv4Network:
    """A subnet that no route of this host uses."""
    return free_subnet(Path("/proc/net/route").read_text(), random.SystemRandom())


def free_subnet(route_table: str, choice: random.Random) -> ipaddress.IPv4Network:
    """A /24 of 10/8 that overlaps no route. `route_table` is /proc/net/route.

    Raises: ResourceExhausted when 10/8 is in use as a whole.
    """
    used = list(_routes(route_table))
    first = choice.randrange(1 << 16)
    for number in (*range(first, 1 << 16), *range(first)):
        subnet = ipaddress.IPv4Network((0x0A000000 | number << 8, 24))
        if not any(subnet.overlaps(other) for other in used):
            return subnet
    raise ResourceExhausted("no free subnet in 10.0.0.0/8 for the demo's pod network")


def _routes(route_table: str) -> list[ipaddress.IPv4Network]:
    found = []
    for line in route_table.splitlines()[1:]:
        fields = line.split("\t")
        # Addresses are hexadecimal in host byte order.
        address, mask = (socket.ntohl(int(fields[column], 16)) for column in (1, 7))
        if mask:
            found.append(ipaddress.IPv4Network((address, mask.bit_count())))
    return found


def conflist(bridge: str, subnet: ipaddress.IPv4Network, ipam_directory: Path) -> str:
    """A CNI configuration list; nothing in it touches the packet filter."""
    plugin = {
        "type": "bridge",
        "bridge": bridge,
        "isGateway": True,
        "ipam": {
            "type": "host-local",
            "dataDir": str(ipam_directory),
            "ranges": [[{"subnet": str(subnet)}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    return json.dumps({"cniVersion": "1.0.0", "name": bridge, "plugins": [plugin]}, indent=2)


def forwarding() -> str:
    """The state of net.ipv4.ip_forward, which the bridge plugin turns on for a gateway."""
    return _IP_FORWARD.read_text()


def restore_forwarding(before: str) -> None:
    """Set net.ipv4.ip_forward back."""
    if forwarding() != before:
        _IP_FORWARD.write_text(before)


def delete_bridge(name: str) -> bool:
    """Take a bridge down and delete it; return whether it was there."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh14x", name.encode(), 0)
        try:
            answer = fcntl.ioctl(control, _SIOCGIFFLAGS, request)
        except OSError:
            return False  # ENODEV: no pod ever reached the network
        (flags,) = struct.unpack_from("h", answer, 16)
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", name.encode(), flags & ~_IFF_UP))
        fcntl.ioctl(control, _SIOCBRDELBR, name.encode() + b"\0")
    return True
