from __future__ import annotations

import inspect

import pytest
from grpclib.const import Status
from hypothesis import given
from hypothesis import strategies as st

from noded import errors
from noded.edge.status import outcome_of


def subclasses():
    return [
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.NodedError) and kind is not errors.NodedError
    ]


@pytest.mark.parametrize("kind", subclasses())
def test_every_class_has_a_status_of_its_own_or_of_its_parent(kind):
    outcome = outcome_of(kind("why"))
    parent = kind if kind.__base__ is errors.NodedError else kind.__base__
    expected = "".join(f"_{letter}" if letter.isupper() else letter for letter in parent.__name__)
    assert outcome.status.name == expected.strip("_").upper()
    assert not outcome.defect


def test_notes_follow_the_message_line_by_line():
    error = errors.Unavailable("the shim does not answer: restart it")
    error.add_note("cleanup failed too: device busy")
    assert (
        outcome_of(error).message == "the shim does not answer: restart it\ncleanup failed too: device busy"
    )


def test_a_group_of_one_is_that_one():
    group = ExceptionGroup("nursery", [ExceptionGroup("inner", [errors.NotFound("no such pod")])])
    assert (outcome_of(group).status, outcome_of(group).message) == (Status.NOT_FOUND, "no such pod")


def test_in_a_group_the_first_error_gives_the_code_and_a_defect_wins():
    both = ExceptionGroup("nursery", [errors.NotFound("a"), errors.Unavailable("b")])
    assert (outcome_of(both).status, outcome_of(both).message) == (Status.NOT_FOUND, "a\nb")
    broken = ExceptionGroup("nursery", [errors.NotFound("a"), ZeroDivisionError("b")])
    assert outcome_of(broken).defect
    assert outcome_of(broken).message == "defect in noded: ZeroDivisionError: b"


def test_the_root_class_itself_is_internal():
    assert outcome_of(errors.NodedError("odd")).status is Status.INTERNAL


@given(st.text(st.characters(codec=None), max_size=5000))
def test_any_text_becomes_a_message_that_fits_a_trailer(text):
    message = outcome_of(errors.Internal(text)).message
    assert len(message.encode()) <= 2010
    if len(text.encode("utf-8", "replace")) <= 2000:
        assert message == text.encode("utf-8", "replace").decode()
