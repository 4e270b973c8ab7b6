"""Mounts that every container gets: the administrator's, and those of a node in FIPS mode."""

from __future__ import annotations

from collections.abc import Mapping

from noded.errors import InvalidArgument
from noded.spec.inputs import NodeMount

# Policies that an image brings for FIPS mode, and where its libraries look for them (crypto-policies(7)).
FIPS_POLICIES: Mapping[str, str] = {
    "/usr/share/crypto-policies/back-ends/FIPS": "/etc/crypto-policies/back-ends",
    "/usr/share/crypto-policies/default-fips-config": "/etc/crypto-policies/config",
}
_FIPS_FILE = "/etc/system-fips"
_FIPS_SWITCH = "/proc/sys/crypto/fips_enabled"


def parse_mounts(text: str) -> tuple[NodeMount, ...]:
    """The mounts of a file as containers-mounts.conf(5) describes it: `/SOURCE:/DESTINATION` lines.

    Raises: InvalidArgument naming the line.
    """
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        source, colon, inside = entry.partition(":")
        for path in (source, inside):
            if not colon or not path.startswith("/") or ".." in path.split("/") or ":" in path:
                raise InvalidArgument(f"line {number}: {entry!r} is not /SOURCE:/DESTINATION")
        found.append(NodeMount(inside, source, "default_mounts_file"))
    return tuple(found)


def fips_mounts(
    *, disabled: bool, empty: str, zero: str, policies: Mapping[str, str]
) -> tuple[NodeMount, ...]:
    """What a container sees of a node that is in FIPS mode.

    Args:
        disabled: it is not to see that.
        empty, zero: files on the host, an empty one and one that contains `0`.
        policies: of FIPS_POLICIES, those whose source and destination are in the image, by their paths on
            the host.
    """
    if disabled:
        return (NodeMount(_FIPS_SWITCH, zero, "disable-fips"),)
    return (
        NodeMount(_FIPS_FILE, empty, "fips"),
        *(NodeMount(inside, source, "fips") for source, inside in policies.items()),
    )
