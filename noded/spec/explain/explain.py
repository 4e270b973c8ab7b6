"""The source of every field of a spec.

Nothing is guessed and nothing is noted while specs are built: each input is changed by itself, the spec is
built again, and the fields that are different then come from that input. So the answer is true by
construction, costs nothing while nobody asks, and holds for inputs that will be invented tomorrow.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from noded.errors import FailedPrecondition, InvalidArgument
from noded.model.host import HostFacts
from noded.model.runtime import RuntimeFeatures
from noded.spec.explain.atoms import Atom, atoms, changed
from noded.spec.explain.case import Case, build, followed, followers
from noded.spec.explain.fields import differing, fields
from noded.spec.explain.reasons import reason
from noded.spec.explain.sources import ORDER, Kind, Source, source

_LIMITS = (HostFacts, RuntimeFeatures)  # they seldom say what a field is, but often what it cannot be
_MOST_OTHERS = 8


@dataclass(frozen=True, slots=True)
class Explained:
    """One field.

    Args:
        origin: where the value comes from.
        also: what else decides it: without these it would be another or absent.
        unless: what the request or the configuration could say to change it, and does not.
    """

    name: str
    value: Any
    origin: Source
    also: tuple[Source, ...] = ()
    unless: tuple[Source, ...] = ()


class Unexplained(FailedPrecondition):
    """A field or input for which no name or reason is known: a gap in this package."""


@dataclass(frozen=True, slots=True)
class _Cause:
    source: Source
    unset: bool
    limit: bool
    reach: int  # fields that change with it: the fewer, the closer it is to one of them


def explained(case: Case) -> list[Explained]:
    """Every field of the spec of a case, in the spec's order.

    Raises: Unexplained naming the fields for which nobody is responsible; as `build`.
    """
    spec = build(case)
    causes = _causes(case, spec)
    found, gaps = [], []
    for name, value in fields(spec).items():
        one = _explain(name, value, causes.get(name, ()))
        if one is None:
            gaps.append(name)
        else:
            found.append(one)
    if gaps:
        raise Unexplained(
            f"nothing explains {', '.join(gaps)}: no input changes them, so they are constants of "
            "noded.spec; say why in noded/spec/explain/reasons.py"
        )
    return found


def _causes(case: Case, spec: Mapping[str, Any]) -> dict[str, list[_Cause]]:
    causes: dict[str, list[_Cause]] = {}
    derived = followers(case)
    for atom in _inputs(case, derived):
        touched = _touched(case, atom, spec, derived)
        if not touched:
            continue
        named = source(case, atom)
        if named is None:
            raise Unexplained(
                f"the input {'.'.join(map(str, atom.path))} of specs has no name: "
                "add its field to noded/spec/explain/sources.py"
            )
        limit = atom.owner in _LIMITS
        cause = _Cause(named, atom.unset and not limit, limit, len(touched))
        for name in touched:
            causes.setdefault(name, []).append(cause)
    return causes


def _inputs(case: Case, derived: Mapping[str, Any]) -> Iterable[Atom]:
    for atom in atoms(case):
        place = atom.path[1:3]
        # The engine has resolved these: `inputs.mounts` and `inputs.devices` stand for them.
        if place in (("container", "mounts"), ("container", "devices"), ("container", "cdi_devices")):
            continue
        if place[:1] and place[0] in derived:
            continue
        if case.passwd is not None and place[:1] == ("user",):
            continue
        yield atom


def _touched(case: Case, atom: Atom, spec: Mapping[str, Any], derived: Mapping[str, Any]) -> set[str]:
    """The fields that change with an input."""
    touched: set[str] = set()
    for alternative in atom.alternatives:
        if alternative == atom.value:
            continue
        try:
            other = build(followed(changed(case, atom.path, alternative), dict(derived)))
        except (InvalidArgument, FailedPrecondition):
            continue  # no value that it may have
        touched |= differing(spec, other)
        if touched and not atom.every:
            break
    return touched


def _explain(name: str, value: Any, causes: Iterable[_Cause]) -> Explained | None:
    ordered = sorted(
        causes,
        key=lambda cause: (cause.unset, cause.limit, cause.reach, ORDER[cause.source.kind]),
    )
    given = _distinct(cause.source for cause in ordered if not cause.unset)
    missing = _distinct(cause.source for cause in ordered if cause.unset)
    if given and (ordered[0].limit or _built_in_profile(name, given)) and (own := reason(name)) is not None:
        given = (replace(given[0], note=own.note), *given[1:])
    if given:
        return Explained(name, value, given[0], given[1:_MOST_OTHERS], missing[:_MOST_OTHERS])
    own = reason(name)
    if own is None:
        if not missing:
            return None
        own = Source(Kind.DEFAULT, "", "what noded does when nobody says otherwise")
    return Explained(name, value, own, (), missing[:_MOST_OTHERS])


def _built_in_profile(name: str, given: Iterable[Source]) -> bool:
    """Whether a part of the filter is there since somebody chose a type of profile, and not a profile."""
    kinds = {source.kind for source in given}
    return name.startswith("linux.seccomp.") and not kinds & {Kind.HANDLER, Kind.PROFILE}


def _distinct(sources: Iterable[Source]) -> tuple[Source, ...]:
    return tuple(dict.fromkeys(sources))
