"""How much a container may write to its root file system, by annotations of its pod."""

from __future__ import annotations

from collections.abc import Mapping

from noded.errors import InvalidArgument
from noded.model.quantity import parse_quantity
from noded.spec.feature_keys import is_allowed

ANNOTATION = "noded.io/disk-quota"
_MAX_BYTES = (1 << 63) - 1  # what a file system can count


def disk_quota(
    annotations: Mapping[str, str], container: str, default_bytes: int, allowed: tuple[str, ...]
) -> tuple[int, tuple[str, ...]]:
    """The limit in bytes, 0 = none; and what to tell an operator.

    Args:
        annotations: of the pod. `noded.io/disk-quota.CONTAINER` counts before `noded.io/disk-quota`; the
            values are Kubernetes quantities such as "10Gi".
        container: its name.
        default_bytes: the operator's limit, 0 = none. A pod may lower it, but lift it only with leave.
        allowed: the `allowed_annotations` that count for the pod.

    Raises: InvalidArgument naming the annotation.
    """
    for key in (f"{ANNOTATION}.{container}", ANNOTATION):
        if key not in annotations:
            continue
        quota = _parse(key, annotations[key])
        lifts = bool(default_bytes) and (not quota or quota > default_bytes)
        if lifts and not is_allowed(key, ANNOTATION, allowed):
            return default_bytes, (
                f"annotation {key}: {annotations[key]!r} is ignored, container_quota_bytes = {default_bytes} "
                "counts: the runtime handler's allowed_annotations do not match it",
            )
        return quota, ()
    return default_bytes, ()


def _parse(key: str, text: str) -> int:
    try:
        quota = int(parse_quantity(text))
    except InvalidArgument as error:
        raise InvalidArgument(f"annotation {key}: {error}") from None
    if quota < 0:
        raise InvalidArgument(f"annotation {key}: {text!r} is negative")
    if quota > _MAX_BYTES:
        raise InvalidArgument(f"annotation {key}: {text!r} is more than {_MAX_BYTES} bytes; 0 means no limit")
    return quota
