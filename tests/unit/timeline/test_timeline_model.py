"""What is made of recorded calls."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from timeline_values import BEGUN_NS, MS, WEB, call, failed, started

from noded.model.timeline import (
    Call,
    Kind,
    Span,
    Subject,
    Timeline,
    as_json,
    from_json,
    group,
    last_steps,
    matches,
    merge,
    recorded_ns,
    rows,
    slowest,
)

instants = st.integers(BEGUN_NS, BEGUN_NS + 10**12)
texts = st.text(max_size=20)


@st.composite
def spans(draw, number):
    begun = draw(instants)
    ended = draw(st.one_of(st.just(0), st.integers(begun + 1, begun + 10**10)))
    attributes = draw(st.dictionaries(texts, texts, max_size=2))
    return Span(number, draw(st.integers(0, number - 1)), draw(texts), begun, ended, draw(texts), attributes)


@st.composite
def calls(draw):
    subject = draw(st.none() | st.builds(Subject, texts, texts, texts, texts))
    count = draw(st.integers(0, 5))
    return Call(
        "00f067aa0ba902b7", draw(texts), "0af7651916cd43dd8448eb211c80319c", draw(texts), BEGUN_NS,
        draw(st.just(0) | instants), draw(texts), subject, draw(texts),
        tuple(draw(spans(number)) for number in range(1, count + 1)),
    )  # fmt: skip


@given(calls())
def test_a_call_survives_the_journal(made):
    # A step that was noted before the call itself would be a defect, and the journal has no sign for it.
    made = replace(
        made, spans=tuple(replace(span, start_ns=max(span.start_ns, BEGUN_NS)) for span in made.spans)
    )
    assert from_json(json.loads(json.dumps(as_json(made)))) == made


@given(calls(), st.randoms(use_true_random=False))
def test_parts_of_a_call_make_the_whole_in_any_order(made, chance: random.Random):
    made = replace(made, end_ns=BEGUN_NS + 10**13)
    whole = tuple(replace(span, end_ns=span.end_ns or BEGUN_NS + 10**13) for span in made.spans)
    parts = [replace(made, spans=(span,)) for span in whole]
    parts += [replace(made, end_ns=0, error="", spans=(replace(span, end_ns=0, error=""),)) for span in whole]
    parts.append(replace(made, spans=()))
    chance.shuffle(parts)
    (merged,) = merge(parts)
    assert sorted(merged.spans, key=lambda span: span.id) == list(whole)
    assert replace(merged, spans=()) == replace(made, spans=())


def test_a_pull_belongs_to_the_sandbox_that_was_asked_for_before_it():
    first, second = replace(WEB, sandbox_id="1" * 64), replace(WEB, sandbox_id="2" * 64)
    pod = replace(WEB, sandbox_id="")
    other = replace(pod, uid="u-2")
    found = group(
        [
            call("PullImage", 30, 40, subject=pod, id_="a" * 16),
            call("RunPodSandbox", 20, 25, subject=second),
            call("PullImage", 12, 18, subject=pod, id_="b" * 16),
            call("RunPodSandbox", 10, 11, subject=first),
            call("PullImage", 5, 6, subject=pod, id_="c" * 16),
            call("PullImage", 1, 2, subject=other, id_="d" * 16),
            call("PullImage", 1, 2, subject=None, id_="e" * 16),
        ]
    )
    told = [[one.id[0] if one.method == "PullImage" else "run" for one in each.calls] for each in found]
    assert told == [
        ["d"], ["c", "run", "b"], ["run", "a"],
    ]  # fmt: skip


def test_phases_are_the_start_what_came_later_and_the_end():
    begun = list(started().calls)
    later = call("CreateContainer", 40_000, 40_100, container="main")
    removed = [call("StopPodSandbox", 40_150, 40_200), call("RemovePodSandbox", 40_201, 40_220)]
    phases = Timeline(WEB, (*begun, later, *removed)).phases
    assert [(phase.kind, len(phase.calls)) for phase in phases] == [
        (Kind.START, 4), (Kind.LATER, 1), (Kind.END, 2),
    ]  # fmt: skip


def test_rows_cover_the_whole_phase_with_the_clients_gaps():
    (phase,) = started().phases
    top = [row for row in rows(phase) if row.depth == 0]
    assert sum(row.end_ns - row.start_ns for row in top) == phase.end_ns - phase.start_ns == 1160 * MS
    assert [row.name for row in top if not row.gap][-1] == "StartContainer main"
    assert slowest(phase, 1) == [("inflate and extract", 718 * MS)]
    assert recorded_ns(phase.calls[0]) == 88 * MS


def test_an_unfinished_call_ends_where_it_is_known_last():
    cut = call("PullImage", 0, None, [(0, "manifest", 1, 5), (0, "layers", 6, None)])
    listed = list(rows(Timeline(WEB, (cut,)).phases[0]))
    assert [(row.name, row.unfinished) for row in listed] == [
        ("PullImage", True), ("manifest", False), ("layers", True),
    ]  # fmt: skip
    assert listed[0].end_ns == BEGUN_NS + 6 * MS


def test_work_that_goes_on_after_the_clients_deadline_is_shown_to_its_end():
    late = call("RunPodSandbox", 0, 100, [(0, "network", 1, 400)], error="DEADLINE_EXCEEDED: it goes on")
    (phase,) = Timeline(WEB, (late,)).phases
    assert phase.end_ns == BEGUN_NS + 400 * MS
    assert max(row.end_ns for row in rows(phase)) == phase.end_ns


def test_the_last_steps_of_a_failure_leave_its_rollback_out():
    assert last_steps(failed().calls[-1]) == ["rootfs", "spec", "runtime", "runc create"]


@pytest.mark.parametrize(
    ("wanted", "meant"),
    [
        ("web", True),
        ("default/web", True),
        ("4f1a0", True),
        ("u-1", True),
        ("", False),
        ("we", False),
        ("f1a", False),
    ],
)
def test_a_pod_is_meant_by_name_uid_or_the_start_of_its_id(wanted, meant):
    assert matches(WEB, wanted) is meant
