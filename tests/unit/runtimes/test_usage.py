"""What a runtime says its containers use."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noded.errors import Unavailable
from noded.model.runtime import TaskUsage
from noded.runtimes.usage import parse_usage

numbers = st.integers(0, 2**63)


def event(cpu, memory, pids):
    data = {
        "cpu": {"usage": {"total": cpu}},
        "memory": {"usage": {"usage": memory}},
        "pids": {"current": pids},
    }
    return json.dumps({"type": "stats", "id": "x", "data": data}).encode()


@given(numbers, numbers, numbers, st.binary())
def test_the_numbers_of_the_first_event_are_told(cpu, memory, pids, more):
    assert parse_usage(event(cpu, memory, pids) + b"\n" + more, "runsc") == TaskUsage(
        cpu, memory, memory, pids
    )


def test_what_is_left_out_is_zero():
    output = b'{"type":"stats","data":{"cpu":{"usage":{}},"memory":{"usage":{"usage":7}}}}'
    assert parse_usage(output, "runsc") == TaskUsage(0, 7, 7, 0)


@given(
    st.one_of(
        st.binary(),
        st.recursive(
            st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(),
            lambda inner: (
                st.lists(inner) | st.dictionaries(st.sampled_from(["type", "data", "cpu", "usage"]), inner)
            ),
        ).map(lambda value: json.dumps(value).encode()),
    )
)
def test_anything_else_is_refused_with_the_name_of_the_program(output):
    with pytest.raises(Unavailable, match="runsc events"):
        parse_usage(output, "runsc")


@pytest.mark.parametrize("value", ["-1", "true", '"7"', "1.5", "[]"])
def test_what_is_no_number_is_refused(value):
    output = b'{"type":"stats","data":{"cpu":{"usage":{"total":' + value.encode() + b"}}}}"
    with pytest.raises(Unavailable, match="total is"):
        parse_usage(output, "runsc")
