"""Which runtime-spec version to claim."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from noded.model.runtime import RuntimeFeatures

_BASE = "1.0.2"


def oci_version(spec: Mapping[str, Any], features: RuntimeFeatures) -> str:
    """The lowest version that defines what `spec` relies on.

    Runtimes refuse versions they do not know (crun 1.8.1: above 1.1), so the newest is no choice.
    Only content whose silent loss would be unsafe counts: a runtime that overlooks an idmapped or
    a recursively read-only mount gives access that nobody granted, one that overlooks the errno of
    a seccomp profile answers EPERM. A handler that has such a feature but claims an older version
    (runc 1.1.5: "1.0.2-dev" with rro) gets the version it claims.
    """
    needed = _BASE
    for mount in spec.get("mounts", ()):
        if "uidMappings" in mount or "gidMappings" in mount or "rro" in mount.get("options", ()):
            needed = "1.1.0"
    return min(needed, _plain(features.highest_oci_version), key=_parts)


def at_least(version: str, wanted: str) -> bool:
    """Whether a runtime of this version of the specification knows what came with `wanted`."""
    return _parts(_plain(version)) >= _parts(wanted)


def _plain(version: str) -> str:
    """Without a pre-release suffix; what is no version counts as the base one."""
    found = re.match(r"\d+\.\d+\.\d+", version)
    return found[0] if found else _BASE


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
