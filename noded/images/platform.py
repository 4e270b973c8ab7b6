"""Which entry of an image index this node runs. Pure but for `host_platform`."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Final

from noded.errors import NotFound
from noded.wire.descriptor import Descriptor, Platform

# uname -m to GOARCH and the highest variant it implies. A 32-bit arm kernel reports its own level.
_MACHINES: Final = {
    "x86_64": ("amd64", ""),
    "amd64": ("amd64", ""),
    "i386": ("386", ""),
    "i686": ("386", ""),
    "aarch64": ("arm64", "v8"),
    "arm64": ("arm64", "v8"),
    "armv8l": ("arm", "v7"),  # a 32-bit personality of a 64-bit kernel
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "armv5tel": ("arm", "v5"),
    "ppc64le": ("ppc64le", ""),
    "s390x": ("s390x", ""),
    "riscv64": ("riscv64", ""),
    "loongarch64": ("loong64", ""),
}
_ALIASES: Final = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "armhf": "arm", "i386": "386"}
_ARM_LEVELS: Final = ("v7", "v6", "v5")


def host_platform(machine: str = "") -> Platform:
    """The node's platform, from `uname -m` or the given machine name."""
    machine = (machine or platform.machine()).lower()
    architecture, variant = _MACHINES.get(machine, (machine, ""))
    return Platform("linux", architecture, variant)


def choose(entries: Sequence[Descriptor], host: Platform, what: str) -> Descriptor:
    """The entry that suits `host` best; among equals the first, as image-index.md asks.

    Args:
        what: names the image in the error.

    Raises: NotFound listing the platforms that the index does have.
    """
    wanted = _acceptable(host)
    best: tuple[int, Descriptor] | None = None
    for entry in entries:
        rank = _rank(entry.platform, wanted)
        if rank is not None and (best is None or rank < best[0]):
            best = (rank, entry)
    if best is not None:
        return best[1]
    offered = sorted(
        {str(entry.platform) for entry in entries if entry.platform and _is_real(entry.platform)}
    )
    raise NotFound(f"{what} has no image for {host}, it has {', '.join(offered) or 'none at all'}")


def _acceptable(host: Platform) -> list[tuple[str, str]]:
    """(architecture, variant) pairs the node can run, best first."""
    if host.architecture == "amd64":
        # Higher micro-architecture levels are skipped: a baseline image is always beside them.
        return [("amd64", ""), ("386", "")]
    if host.architecture == "arm64":
        return [("arm64", "v8"), *(("arm", level) for level in _ARM_LEVELS)]
    if host.architecture == "arm":
        level = host.variant or "v7"
        return [("arm", below) for below in _ARM_LEVELS if below <= level]
    return [(host.architecture, host.variant)]


def _rank(found: Platform | None, wanted: Sequence[tuple[str, str]]) -> int | None:
    if found is None or not (found.os or found.architecture):
        return len(wanted)  # an index entry that does not say is the last resort
    pair = _normalised(found)
    if found.os != "linux" or pair not in wanted:
        return None
    return wanted.index(pair)


def _normalised(found: Platform) -> tuple[str, str]:
    architecture = _ALIASES.get(found.architecture.lower(), found.architecture.lower())
    variant = found.variant.lower()
    if variant and variant[0].isdigit():
        variant = f"v{variant}"
    if architecture == "arm64" and variant in ("", "v8", "v8.0"):
        return architecture, "v8"
    if architecture == "arm" and not variant:
        return architecture, "v7"
    if architecture == "amd64" and variant == "v1":
        return architecture, ""
    return architecture, variant


def _is_real(found: Platform) -> bool:
    # BuildKit stores attestations as index entries for the platform unknown/unknown.
    return bool(found.architecture) and found.architecture != "unknown"
