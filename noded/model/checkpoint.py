"""What is in a checkpoint archive beside the images of the processes. Pure.

The form is that of the checkpointctl library, which CRI-O, containerd and Podman write and read:

    config.dump       JSON: which container this was, of which image
    spec.dump         its OCI spec
    bind.mounts       JSON: its bind mounts and what they were
    checkpoint/       CRIU's images
    rootfs-diff.tar   what it had written
    deleted.files     JSON: paths of the image that it had removed
    container.log     its log so far
    dump.log stats-dump   of CRIU
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from noded.errors import InvalidArgument

CONFIG_DUMP = "config.dump"
SPEC_DUMP = "spec.dump"
BIND_MOUNTS = "bind.mounts"
IMAGES_DIRECTORY = "checkpoint"
ROOTFS_DIFF = "rootfs-diff.tar"
DELETED_FILES = "deleted.files"
CONTAINER_LOG = "container.log"

# On the manifest of images that hold an archive's files; CRI-O's name, which others took over.
IMAGE_ANNOTATION = "io.kubernetes.cri-o.annotations.checkpoint.name"
# Where CRI-O looks for the container's CRI annotations in spec.dump.
SPEC_ANNOTATIONS = "io.kubernetes.cri-o.Annotations"

_MAX_PATHS = 1_000_000


@dataclass(frozen=True, slots=True)
class CheckpointConfig:
    """config.dump. `image_id` is the exact image, `image_name` what names it for people."""

    container_id: str
    name: str
    image_name: str
    image_id: str
    runtime: str
    created_at_ns: int
    checkpointed_at_ns: int

    def to_json(self) -> bytes:
        value = {
            "id": self.container_id,
            "name": self.name,
            "rootfsImage": self.image_name,
            "rootfsImageRef": self.image_id,
            "rootfsImageName": self.image_name,
            "runtime": self.runtime,
            "createdTime": _rfc3339(self.created_at_ns),
            "checkpointedTime": _rfc3339(self.checkpointed_at_ns),
            "restoredTime": "0001-01-01T00:00:00Z",  # Go's zero time: never
            "restored": False,
        }
        return json.dumps(value, indent=2).encode()


def base_images(data: bytes) -> tuple[str, ...]:
    """The names under which the image of a checkpointed container may be known, the most exact first.

    Raises: InvalidArgument when the text is no config.dump, or names no image.
    """
    value = parse_object(data, CONFIG_DUMP)
    names = []
    for key in ("rootfsImageRef", "rootfsImageName", "rootfsImage"):
        name = value.get(key)
        if isinstance(name, str) and name:
            # CRI-O writes the ID without its algorithm.
            names.append(f"sha256:{name}" if _is_hex(name) else name)
    if not names:
        raise InvalidArgument(f"the checkpoint's {CONFIG_DUMP} names no image")
    return tuple(dict.fromkeys(names))


def deleted_paths(data: bytes) -> tuple[str, ...]:
    """Parse deleted.files. Raises: InvalidArgument."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"the checkpoint's {DELETED_FILES} is no JSON: {error}") from None
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > _MAX_PATHS:
        raise InvalidArgument(f"the checkpoint's {DELETED_FILES} is no list of at most {_MAX_PATHS} paths")
    for path in value:
        if (
            not isinstance(path, str)
            or "\0" in path
            or {".", ".."} & {*path.split("/")}
            or not path.strip("/")
        ):
            raise InvalidArgument(f"the checkpoint's {DELETED_FILES} has a path that is none: {path!r:.200}")
    return tuple(value)


def parse_object(data: bytes, name: str) -> dict[str, Any]:
    """Parse a JSON object of an archive. Raises: InvalidArgument naming the file."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"the checkpoint's {name} is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidArgument(f"the checkpoint's {name} is no JSON object")
    return value


def missing_mounts(dumped: Mapping[str, Any], spec: Mapping[str, Any]) -> list[str]:
    """Mount points of the checkpointed container that the one to be restored does not have.

    CRIU cannot restore it without them. Their sources are those of the new container, always: an
    archive must not be able to mount what the request does not.
    """
    there = _destinations(spec)
    return sorted(_destinations(dumped) - there)


def dumped_spec(spec: Mapping[str, Any], annotations: Mapping[str, str]) -> bytes:
    """spec.dump of a container with these CRI annotations."""
    of_cri_o = json.dumps(dict(annotations), sort_keys=True)
    value = {**spec, "annotations": {**spec.get("annotations", {}), SPEC_ANNOTATIONS: of_cri_o}}
    return json.dumps(value, indent=2).encode()


def _destinations(spec: Mapping[str, Any]) -> set[str]:
    mounts = spec.get("mounts")
    found: set[str] = set()
    for mount in mounts if isinstance(mounts, list) else ():
        if isinstance(mount, dict) and isinstance(mount.get("destination"), str):
            found.add("/" + mount["destination"].strip("/"))
    return found


def _is_hex(text: str) -> bool:
    return len(text) == 64 and all(letter in "0123456789abcdef" for letter in text)


def _rfc3339(time_ns: int) -> str:
    seconds, rest = divmod(time_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09}Z"
