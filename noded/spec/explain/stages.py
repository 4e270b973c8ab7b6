"""Sources of what changes a spec after it was built, and of what a finished one has that differs from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from noded.spec.explain.explain import Explained
from noded.spec.explain.fields import fields
from noded.spec.explain.sources import Kind, Source

_CHANGED = Source(Kind.CHANGED, "", "today's configuration or node gives something else")


def after_stages(
    built: Iterable[Explained], stages: Iterable[tuple[Source, Mapping[str, Any]]]
) -> list[Explained]:
    """The fields after all stages, in the order of the last spec.

    Args:
        built: the fields of the spec before the first one.
        stages: who it was, and the whole spec after that.
    """
    known = {one.name: one for one in built}
    for who, spec in stages:
        known = {name: _staged(known.get(name), name, value, who) for name, value in fields(spec).items()}
    return list(known.values())


def _staged(before: Explained | None, name: str, value: Any, who: Source) -> Explained:
    if before is None:
        return Explained(name, value, who)
    if before.value == value:
        return before
    return Explained(name, value, who, (before.origin, *before.also))


def as_found(derived: Iterable[Explained], actual: Mapping[str, Any]) -> tuple[list[Explained], list[str]]:
    """The fields of the spec that a container really has, explained by what would be derived today.

    Args:
        actual: the spec of the bundle.

    Returns: its fields, those that would be different today with a source of kind "changed"; and names of
        the fields that would be there today and are not.
    """
    today = {one.name: one for one in derived}
    found = []
    for name, value in fields(actual).items():
        one = today.pop(name, None)
        if one is None:
            found.append(Explained(name, value, _CHANGED))
        elif one.value == value:
            found.append(one)
        else:
            found.append(Explained(name, value, _CHANGED, (one.origin, *one.also)))
    return found, list(today)
