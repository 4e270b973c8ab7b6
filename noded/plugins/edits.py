"""Merging the spec edits of plugins, and applying them. Pure."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from noded.errors import FailedPrecondition
from noded.model.extension import Edit


def apply_edits(spec: Mapping[str, Any], edits: Iterable[tuple[str, Edit]]) -> dict[str, Any]:
    """Return the spec with all edits applied in order.

    Args:
        edits: pairs of (distribution that wants it, edit).

    Raises: FailedPrecondition when two distributions change one place differently, one changes what
        is inside a place that another sets, or an edit does not fit the spec; names who and where.
    """
    result: dict[str, Any] = copy.deepcopy(dict(spec))
    done: list[tuple[str, Edit]] = []
    for distribution, edit in edits:
        for other, earlier in done:
            if other != distribution and _conflict(earlier, edit):
                raise FailedPrecondition(
                    f"plugins {other} and {distribution} change {_dotted(edit.path)} of the OCI spec "
                    "differently: disable one or change its configuration"
                )
        _apply(result, edit, distribution)
        done.append((distribution, edit))
    return result


def _conflict(first: Edit, second: Edit) -> bool:
    if first.append and second.append:
        return False
    shared = min(len(first.path), len(second.path))
    if first.path[:shared] != second.path[:shared]:
        return False
    if first.path == second.path:
        same_value = first.remove or first.value == second.value
        return (first.append, first.remove) != (second.append, second.remove) or not same_value
    return True


def _apply(spec: dict[str, Any], edit: Edit, distribution: str) -> None:
    if not edit.path:
        raise FailedPrecondition(f"plugin {distribution} has an edit of the OCI spec without a path")
    parent: Any = spec
    for depth, key in enumerate(edit.path[:-1]):
        if edit.remove and isinstance(parent, dict) and key not in parent:
            return
        parent = parent.setdefault(key, {})
        if not isinstance(parent, dict):
            raise _misfit(distribution, edit.path[: depth + 1], "is not an object")
    key = edit.path[-1]
    if edit.remove:
        parent.pop(key, None)
    elif edit.append:
        items = parent.setdefault(key, [])
        if not isinstance(items, list):
            raise _misfit(distribution, edit.path, "is not a list")
        items.append(copy.deepcopy(edit.value))
    else:
        parent[key] = copy.deepcopy(edit.value)


def _misfit(distribution: str, path: tuple[str, ...], problem: str) -> FailedPrecondition:
    return FailedPrecondition(f"plugin {distribution} cannot edit the OCI spec: {_dotted(path)} {problem}")


def _dotted(path: tuple[str, ...]) -> str:
    return ".".join(path)
