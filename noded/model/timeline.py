"""Where the time of a pod went: what clients asked for, the steps of each call, and the gaps between."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import pairwise
from types import MappingProxyType
from typing import Any

# A client that is silent for so long is not working on the same thing any more. kubelet's back-off after a
# failed pull or start begins with 10 s, its other waits are shorter.
PAUSE_NS = 30 * 10**9

ENDING = frozenset({"StopContainer", "RemoveContainer", "StopPodSandbox", "RemovePodSandbox"})

NO_ATTRIBUTES: Mapping[str, str] = MappingProxyType({})


def _no_attributes() -> Mapping[str, str]:
    return NO_ATTRIBUTES


@dataclass(frozen=True, slots=True)
class Subject:
    """The pod that a call is about. `sandbox_id` is "" where the client names the pod only (PullImage)."""

    namespace: str
    name: str
    uid: str
    sandbox_id: str = ""

    @property
    def pod(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Span:
    """One step of a call.

    Args:
        id: within its call, from 1.
        parent: id of the step that it is part of, 0 = the call itself.
        end_ns: ns since the epoch, 0 = it had not ended when this was written.
        error: why it failed, "" if it did not.
    """

    id: int
    parent: int
    name: str
    start_ns: int
    end_ns: int
    error: str = ""
    attributes: Mapping[str, str] = field(default_factory=_no_attributes)


@dataclass(frozen=True, slots=True)
class Call:
    """One RPC with its steps.

    Args:
        id: 16 hexadecimal digits; also its span id in traces.
        trace_id: 32 hexadecimal digits, the client's if it sent one.
        parent_id: span id of the client's, "" if it sent none.
        container: name of the container that it is about, "" if none.
        end_ns: 0 = unfinished; of a daemon that ended meanwhile it stays so.
    """

    id: str
    method: str
    trace_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    error: str = ""
    subject: Subject | None = None
    container: str = ""
    spans: tuple[Span, ...] = ()

    @property
    def last_ns(self) -> int:
        """When the last of it ended: work may go on when the client's deadline has passed."""
        known = (max(span.start_ns, span.end_ns) for span in self.spans)
        return max(self.end_ns, self.start_ns, *known)


class Kind(StrEnum):
    """What a part of a timeline is about."""

    START = "start"
    LATER = "later"
    END = "end"


@dataclass(frozen=True, slots=True)
class Phase:
    """Calls that follow each other closely. Sorted by their start, at least one."""

    kind: Kind
    calls: tuple[Call, ...]

    @property
    def start_ns(self) -> int:
        return self.calls[0].start_ns

    @property
    def end_ns(self) -> int:
        return max(call.last_ns for call in self.calls)

    @property
    def failed(self) -> bool:
        return any(call.error for call in self.calls)


@dataclass(frozen=True, slots=True)
class Timeline:
    """All that is known of one pod sandbox, calls in the order of their starts, at least one."""

    subject: Subject
    calls: tuple[Call, ...]

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The pod's start, what was asked later, and its end."""
        groups: list[list[Call]] = []
        latest_ns = 0
        for call in self.calls:
            paused = call.start_ns - latest_ns > PAUSE_NS
            if not groups or paused or (call.method in ENDING) != (groups[-1][0].method in ENDING):
                groups.append([])
            groups[-1].append(call)
            latest_ns = max(latest_ns, call.last_ns)
        return tuple(Phase(_kind(index, group), tuple(group)) for index, group in enumerate(groups))


def _kind(index: int, calls: Sequence[Call]) -> Kind:
    if calls[0].method in ENDING:
        return Kind.END
    return Kind.START if index == 0 else Kind.LATER


@dataclass(frozen=True, slots=True)
class Row:
    """One bar of a waterfall.

    Args:
        depth: 0 for a call or a gap between calls, more for steps.
        gap: nobody in noded was at work: the client's own time (depth 0), or unrecorded (deeper).
        unfinished: the daemon ended, or is still at it.
        divided: the rows below say what it consisted of.
    """

    depth: int
    name: str
    start_ns: int
    end_ns: int
    error: str = ""
    gap: bool = False
    unfinished: bool = False
    divided: bool = False
    attributes: Mapping[str, str] = field(default_factory=_no_attributes)


def rows(phase: Phase) -> Iterator[Row]:
    """The bars of a phase, from top to bottom: calls, below each its steps, and the client's gaps."""
    covered_ns = phase.start_ns
    for call in phase.calls:
        if call.start_ns > covered_ns:
            yield Row(0, "client", covered_ns, call.start_ns, gap=True)
        covered_ns = max(covered_ns, call.last_ns)
        name = f"{call.method} {call.container}".rstrip()
        yield Row(0, name, call.start_ns, call.last_ns, call.error, unfinished=not call.end_ns)
        below: dict[int, list[Span]] = {}
        for span in call.spans:
            below.setdefault(span.parent, []).append(span)
        yield from _steps(below, 0, 1, call.last_ns)


def _steps(below: Mapping[int, Sequence[Span]], parent: int, depth: int, end_ns: int) -> Iterator[Row]:
    for span in sorted(below.get(parent, ()), key=lambda one: (one.start_ns, one.id)):
        ended_ns = span.end_ns or max(end_ns, span.start_ns)
        yield Row(
            depth, span.name, span.start_ns, ended_ns, span.error,
            unfinished=not span.end_ns, divided=span.id in below, attributes=span.attributes,
        )  # fmt: skip
        yield from _steps(below, span.id, depth + 1, ended_ns)


def recorded_ns(call: Call) -> int:
    """How much of a call's time its direct steps explain."""
    covered_ns, total_ns = call.start_ns, 0
    for span in sorted((one for one in call.spans if one.parent == 0), key=lambda one: one.start_ns):
        end_ns = min(span.end_ns or call.last_ns, call.last_ns)
        total_ns += max(0, end_ns - max(covered_ns, span.start_ns))
        covered_ns = max(covered_ns, end_ns)
    return total_ns


def slowest(phase: Phase, count: int) -> list[tuple[str, int]]:
    """The steps without steps of their own that took longest: (name, ns), by name, gaps included."""
    spent: dict[str, int] = {}
    listed = list(rows(phase))
    for row, after in pairwise([*listed, None]):
        if row is not None and (after is None or after.depth <= row.depth):
            spent[row.name] = spent.get(row.name, 0) + row.end_ns - row.start_ns
    return sorted(spent.items(), key=lambda pair: -pair[1])[:count]


def last_steps(call: Call, count: int = 4) -> list[str]:
    """What a failed call did last, up to the step that failed; its rollback is not part of it."""
    steps = sorted(
        (span for span in call.spans if not span.name.startswith("undo ")),
        key=lambda span: (span.start_ns, span.id),
    )
    failed = [index for index, span in enumerate(steps) if span.error]
    return [span.name for span in steps[: failed[-1] + 1 if failed else len(steps)]][-count:]


def group(calls: Iterable[Call]) -> list[Timeline]:
    """Timelines of all sandboxes that calls are about, the oldest first.

    A call that names a pod only belongs to the sandbox of that pod which was last asked for before it,
    else to the next one. Calls that are about no pod are left out.
    """
    about = sorted((call for call in calls if call.subject is not None), key=lambda call: call.start_ns)
    found: dict[str, _Gathered] = {}
    by_pod: dict[tuple[str, str, str], list[_Gathered]] = {}
    for call in about:
        subject = call.subject
        if subject is not None and subject.sandbox_id:
            gathered = found.get(subject.sandbox_id)
            if gathered is None:
                gathered = found[subject.sandbox_id] = _Gathered(subject)
                by_pod.setdefault((subject.namespace, subject.name, subject.uid), []).append(gathered)
            gathered.calls.append(call)
    for call in about:
        subject = call.subject
        if subject is None or subject.sandbox_id:
            continue
        key = (subject.namespace, subject.name, subject.uid)
        siblings = by_pod.get(key, [])
        before = [one for one in siblings if one.first_ns <= call.start_ns]
        if before or siblings:
            (before[-1] if before else siblings[0]).calls.append(call)
        else:
            lone = _Gathered(subject)
            found[f"pod {key}"] = lone
            by_pod[key] = [lone]
            lone.calls.append(call)
    timelines = [
        Timeline(one.subject, tuple(sorted(one.calls, key=lambda call: call.start_ns)))
        for one in found.values()
    ]
    return sorted(timelines, key=lambda one: one.calls[0].start_ns)


@dataclass(slots=True)
class _Gathered:
    subject: Subject
    calls: list[Call] = field(default_factory=list)

    @property
    def first_ns(self) -> int:
        return self.calls[0].start_ns


def merge(parts: Iterable[Call]) -> list[Call]:
    """Whole calls from what is known of each, in any order: an end counts more than a beginning."""
    merged: dict[str, Call] = {}
    for part in parts:
        known = merged.get(part.id)
        if known is not None:
            spans = {span.id: span for span in known.spans}
            for span in part.spans:
                if span.end_ns or span.id not in spans:
                    spans[span.id] = span
            later, earlier = (part, known) if part.end_ns >= known.end_ns else (known, part)
            part = replace(
                later,
                subject=_fuller(later.subject, earlier.subject),
                container=later.container or earlier.container,
                spans=tuple(spans.values()),
            )
        merged[part.id] = part
    return list(merged.values())


def _fuller(one: Subject | None, other: Subject | None) -> Subject | None:
    return other if one is None or (other is not None and not one.sandbox_id) else one


def matches(subject: Subject, wanted: str) -> bool:
    """Whether a person who types `wanted` may mean this: NAME, NAMESPACE/NAME, uid, start of the id."""
    exact = wanted in (subject.name, subject.pod, subject.uid)
    return exact or bool(wanted and subject.sandbox_id.startswith(wanted))


def as_json(call: Call) -> dict[str, Any]:
    """One call as a line of the journal. Times of steps are counted from the start of the call."""
    subject = call.subject
    return {
        "call": call.id,
        "method": call.method,
        "trace": call.trace_id,
        "parent": call.parent_id,
        "start_ns": call.start_ns,
        "end_ns": call.end_ns,
        "error": call.error,
        "pod": subject and [subject.namespace, subject.name, subject.uid, subject.sandbox_id],
        "container": call.container,
        "spans": [
            [
                span.id,
                span.parent,
                span.name,
                span.start_ns - call.start_ns,
                span.end_ns and span.end_ns - call.start_ns,
                span.error,
                dict(span.attributes),
            ]
            for span in call.spans
        ],
    }  # fmt: skip


def from_json(value: Mapping[str, Any]) -> Call:
    """Read what `as_json` made. Raises: KeyError, TypeError, ValueError for anything else."""
    start_ns = int(value["start_ns"])
    return Call(
        id=str(value["call"]),
        method=str(value["method"]),
        trace_id=str(value["trace"]),
        parent_id=str(value["parent"]),
        start_ns=start_ns,
        end_ns=int(value["end_ns"]),
        error=str(value["error"]),
        subject=None if value["pod"] is None else Subject(*(str(part) for part in value["pod"])),
        container=str(value["container"]),
        spans=tuple(
            Span(
                id=int(id_),
                parent=int(parent),
                name=str(name),
                start_ns=start_ns + int(begun_ns),
                end_ns=start_ns + int(ended_ns) if ended_ns else 0,
                error=str(error),
                attributes={str(key): str(text) for key, text in attributes.items()},
            )
            for id_, parent, name, begun_ns, ended_ns, error, attributes in value["spans"]
        ),
    )
