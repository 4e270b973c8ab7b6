"""What a runtime can do: from its `features` verb (OCI runtime-spec features.md), or a table."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from noded.model.runtime import RuntimeFeatures
from noded.runtimes.quirks import FeatureTable, OciQuirks

# mount_setattr(2): recursive read-only and idmapped mounts.
_MOUNT_SETATTR_KERNEL = (5, 12)
# SECCOMP_USER_NOTIF_FLAG_CONTINUE: without it a call cannot be noted and go on.
_NOTIFY_CONTINUE_KERNEL = (5, 5)
# overlayfs on idmapped layers, which a pod with a user namespace has as its root file system.
_IDMAPPED_OVERLAY_KERNEL = (5, 19)

# features.md has no field for it; runc and crun say it so.
_CHECKPOINT_ANNOTATIONS = ("org.opencontainers.runc.checkpoint.enabled", "run.oci.crun.checkpoint.enabled")

_VERSION = re.compile(r"\bversion[\s:]+(?:release-)?v?(\S+)")
_SPEC = re.compile(r"^spec:\s*(\S+)", re.MULTILINE)


def parse_version(output: str) -> tuple[str, str]:
    """Return (version, OCI version) from the output of `--version`, "" for what it does not say."""
    version = _VERSION.search(output)
    spec = _SPEC.search(output)
    return (version[1] if version else "", spec[1] if spec else "")


def version_tuple(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: "1.1.5+ds1" is (1, 1, 5), "" is ().

    "0.0~20221219.0" is how Debian names a release that is a date.
    """
    match = re.match(r"(?:0\.0~(?=\d))?(\d+(?:\.\d+)*)", version)
    return tuple(int(part) for part in match[1].split(".")) if match else ()


def features_from_table(version: str, table: FeatureTable, quirks: OciQuirks) -> RuntimeFeatures:
    """Abilities of a release without a `features` verb. An unknown version has none of them."""
    numbers = version_tuple(version)

    def since(first: tuple[int, ...] | None) -> bool:
        return first is not None and numbers >= first

    return RuntimeFeatures(
        version=version,
        recursive_read_only_mounts=since(table.recursive_read_only_mounts),
        user_namespaces=since(table.user_namespaces),
        idmap_mounts=since(table.idmap_mounts),
        seccomp_notify=since(table.seccomp_notify),
        waiting_reads=since(table.waiting_reads),
        forwards=since(table.forwards),
        update=quirks.update,
        needs_infra=quirks.needs_infra,
        highest_oci_version=table.highest_oci_version,
        unknown_capabilities=table.unknown_capabilities,
        sockets_in_netns=not quirks.own_network,
        usage_in_cgroup=quirks.host_processes,
    )


def features_from_json(version: str, output: bytes, quirks: OciQuirks) -> RuntimeFeatures:
    """Abilities from the JSON of the `features` verb.

    Raises: ValueError when it is not such a document.
    """
    document = json.loads(output)
    if not isinstance(document, dict) or "ociVersionMax" not in document:
        raise ValueError("not an OCI features document")
    linux = _mapping(document, "linux")
    idmap = _mapping(_mapping(linux, "mountExtensions"), "idmap").get("enabled") is True
    annotations = _mapping(document, "annotations")
    return RuntimeFeatures(
        version=version,
        recursive_read_only_mounts="rro" in (document.get("mountOptions") or ()),
        user_namespaces="user" in (linux.get("namespaces") or ()) and idmap,
        idmap_mounts=idmap,
        seccomp_notify="SCMP_ACT_NOTIFY" in (_mapping(linux, "seccomp").get("actions") or ()),
        update=quirks.update,
        checkpoint=any(annotations.get(name) == "true" for name in _CHECKPOINT_ANNOTATIONS),
        needs_infra=quirks.needs_infra,
        highest_oci_version=str(document["ociVersionMax"]),
        sockets_in_netns=not quirks.own_network,
        usage_in_cgroup=quirks.host_processes,
    )


def limited_by_kernel(
    features: RuntimeFeatures, kernel: tuple[int, int], *, user_namespaces: bool
) -> RuntimeFeatures:
    """Take away what the kernel cannot do. `user_namespaces`: whether it may create any at all."""
    setattr_works = kernel >= _MOUNT_SETATTR_KERNEL
    return replace(
        features,
        recursive_read_only_mounts=features.recursive_read_only_mounts and setattr_works,
        user_namespaces=features.user_namespaces and user_namespaces and kernel >= _IDMAPPED_OVERLAY_KERNEL,
        idmap_mounts=features.idmap_mounts and setattr_works,
        seccomp_notify=features.seccomp_notify and kernel >= _NOTIFY_CONTINUE_KERNEL,
    )


def _mapping(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = document.get(key)
    return value if isinstance(value, dict) else {}
