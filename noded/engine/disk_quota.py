"""How much a container may write to its root file system, by annotations of its pod."""

from __future__ import annotations

from collections.abc import Mapping

from noded.errors import InvalidArgument
from noded.model.quantity import parse_quantity

ANNOTATION = "noded.io/disk-quota"


def disk_quota(annotations: Mapping[str, str], container: str, default_bytes: int) -> int:
    """The limit in bytes, 0 = none.

    Args:
        annotations: of the pod. `noded.io/disk-quota.CONTAINER` counts before `noded.io/disk-quota`; the
            values are Kubernetes quantities such as "10Gi".
        container: its name.
        default_bytes: without such an annotation.

    Raises: InvalidArgument naming the annotation.
    """
    for key in (f"{ANNOTATION}.{container}", ANNOTATION):
        if key in annotations:
            try:
                quota = int(parse_quantity(annotations[key]))
            except InvalidArgument as error:
                raise InvalidArgument(f"annotation {key}: {error}") from None
            if quota < 0:
                raise InvalidArgument(f"annotation {key}: {annotations[key]!r} is negative")
            return quota
    return default_bytes
