"""How a pod's cgroup parent and a container id become cgroup names: pure rules for both drivers.

*place* = path of a cgroup relative to its hierarchy, e.g. `/kubepods/pod1/noded-ID`.
*OCI path* = what `linux.cgroupsPath` of a spec says: a place with the cgroupfs driver,
`SLICE:PREFIX:NAME` with the systemd driver (runc and crun share this convention).
"""

from __future__ import annotations

import posixpath
import re

from noded.errors import InvalidArgument
from noded.model.host import CgroupDriver

PREFIX = "noded"
CRIO_PREFIX = "crio"  # what cAdvisor knows
DEFAULT_PARENT = {CgroupDriver.CGROUPFS: "/noded", CgroupDriver.SYSTEMD: "system.slice"}

_FIELD = "linux.cgroup_parent"
_UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]+")
_UNIT_LIMIT = 255  # UNIT_NAME_MAX of systemd is 256 with the NUL


def oci_path(driver: CgroupDriver, parent: str, name: str, prefix: str = PREFIX) -> str:
    """Return `linux.cgroupsPath` for the container or pod `name` under the client's cgroup parent.

    Args:
        parent: as kubelet sends it; empty = noded's default for the driver.
        prefix: PREFIX or CRIO_PREFIX.

    Raises: InvalidArgument naming linux.cgroup_parent.
    """
    if driver is CgroupDriver.SYSTEMD:
        return f"{parent_slice(parent)}:{prefix}:{name}"
    # kubelet finds the ID in CRI-O's names only between the last "-" and ".scope", whatever the driver.
    suffix = ".scope" if prefix == CRIO_PREFIX else ""
    return posixpath.join(parent_path(parent), f"{prefix}-{name}{suffix}")


def parent_path(parent: str) -> str:
    """Check a cgroupfs parent; return it absolute and normal.

    Raises: InvalidArgument.
    """
    if not parent:
        return DEFAULT_PARENT[CgroupDriver.CGROUPFS]
    if parent.endswith(".slice"):
        raise InvalidArgument(
            f"{_FIELD}: {parent!r} is a systemd slice, but noded uses the cgroupfs driver; "
            "give kubelet and noded the same cgroup driver"
        )
    _check_path(parent, _FIELD)
    return posixpath.normpath("/" + parent.lstrip("/"))


def parent_slice(parent: str) -> str:
    """Check a systemd parent, a slice or the whole path of one; return the slice's unit name.

    Raises: InvalidArgument.
    """
    if not parent:
        return DEFAULT_PARENT[CgroupDriver.SYSTEMD]
    unit = posixpath.basename(parent.rstrip("/"))
    if not unit.endswith(".slice"):
        raise InvalidArgument(
            f"{_FIELD}: {parent!r} is not a systemd slice, but noded uses the systemd driver; "
            "give kubelet and noded the same cgroup driver"
        )
    whole = expand_slice(unit)
    if "/" in parent.strip("/") and parent.strip("/") != whole.strip("/"):
        raise InvalidArgument(f"{_FIELD}: {parent!r} is not where systemd puts {unit}: {whole}")
    return unit


def expand_slice(unit: str) -> str:
    """Return the place of a slice: `a-b.slice` is `/a.slice/a-b.slice` (systemd.slice(5)).

    Raises: InvalidArgument naming linux.cgroup_parent for a name that systemd refuses.
    """
    stem = unit.removesuffix(".slice")
    if unit == "-.slice":
        return "/"
    parts = stem.split("-")
    if stem == unit or "" in parts or not _UNIT.fullmatch(unit) or len(unit) > _UNIT_LIMIT:
        raise InvalidArgument(f"{_FIELD}: {unit!r} is not a valid name of a systemd slice")
    return "/" + "/".join("-".join(parts[: count + 1]) + ".slice" for count in range(len(parts)))


def place(oci_cgroups_path: str) -> str:
    """Return the place of an OCI path of either driver.

    Raises: InvalidArgument for the root, `..` or a malformed path.
    """
    if oci_cgroups_path.count(":") == 2 and not oci_cgroups_path.startswith("/"):
        unit, prefix, name = oci_cgroups_path.split(":")
        return posixpath.join(expand_slice(unit or "system.slice"), scope_unit(prefix, name))
    _check_path(oci_cgroups_path, "linux.cgroupsPath")
    if not oci_cgroups_path.startswith("/"):
        raise InvalidArgument(f"linux.cgroupsPath: {oci_cgroups_path!r} is not absolute")
    return checked_place(oci_cgroups_path)


def scope_unit(prefix: str, name: str) -> str:
    """Return the unit that a runtime asks systemd for."""
    if name.endswith(".slice"):
        return name
    return f"{prefix}-{name}.scope" if prefix else f"{name}.scope"


def checked_place(path: str) -> str:
    """Normalise a place; the root of a hierarchy is never one.

    Raises: InvalidArgument.
    """
    _check_path(path, "cgroup")
    normal = posixpath.normpath("/" + path.lstrip("/"))
    if normal == "/":
        raise InvalidArgument("cgroup: the root of the hierarchy is not a place for a container")
    return normal


def _check_path(path: str, field: str) -> None:
    parts = path.split("/")
    if ".." in parts or any(character in path for character in "\0\n") or not path.strip("/"):
        raise InvalidArgument(f"{field}: {path!r} is not a cgroup path")
    if any(len(part.encode(errors="surrogateescape")) > 255 for part in parts):
        raise InvalidArgument(f"{field}: a component of {path!r} is longer than 255 bytes")
