"""CNI specification versions: which exist, how they compare, which one to speak. Pure."""

from __future__ import annotations

from collections.abc import Iterable

# Newest first. 0.1.0 and 0.2.0 have another result form (ip4, ip6), see `result`.
SUPPORTED = ("1.1.0", "1.0.0", "0.4.0", "0.3.1", "0.3.0", "0.2.0", "0.1.0")

# A configuration without cniVersion is older than the field (spec 0.2.0).
OLDEST = "0.1.0"


def at_least(version: str, minimum: str) -> bool:
    """Whether `version` is `minimum` or newer. Both must be in `SUPPORTED`."""
    return SUPPORTED.index(version) <= SUPPORTED.index(minimum)


def negotiate(declared: Iterable[str], plugins: Iterable[frozenset[str]]) -> str | None:
    """Return the newest version that the configuration declares and every plugin speaks.

    Args:
        declared: versions of the configuration, in any order; unknown ones are ignored.
        plugins: the versions of each plugin whose answer to VERSION is known.

    Spec: 1.1.0 section 1, `cniVersions`.
    """
    wanted = set(declared)
    known = list(plugins)
    for version in SUPPORTED:
        if version in wanted and all(version in spoken for spoken in known):
            return version
    return None
