"""Classes of block I/O and RDT: the files of containerd and CRI-O, the annotations, and the spec."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noded.errors import InvalidArgument
from noded.spec.classes import BlockIo, block_io, class_of, parse_blockio, parse_rdt
from noded.wire.yaml_subset import parse_blocks

FILE = """
Classes:
  # throttled
  LowPrio:
    - Weight: 80

    - Devices:
        - /dev/sd[a-z]   # all disks
        - "/dev/vd*"
      ThrottleReadBps: 50M
      ThrottleWriteIOPS: 10k
      Weight: 50
    - Devices: [/dev/sda]
      ThrottleReadBps: 1Gi
  HighPrio:
  - weight: 400
"""
DISKS = {"/dev/sd[a-z]": [(8, 0), (8, 16)], "/dev/vd*": [], "/dev/sda": [(8, 0)]}


def test_a_file_in_goresctrls_format_is_read():
    assert parse_blockio(FILE) == {
        "LowPrio": (
            BlockIo(weight=80),
            BlockIo(
                ("/dev/sd[a-z]", "/dev/vd*"),
                50,
                {"throttleReadBpsDevice": 50_000_000, "throttleWriteIOPSDevice": 10_000},
            ),
            BlockIo(("/dev/sda",), None, {"throttleReadBpsDevice": 1 << 30}),
        ),
        "HighPrio": (BlockIo(weight=400),),
    }
    assert parse_blockio("") == {}


def test_the_later_of_two_entries_for_a_device_counts():
    assert block_io(parse_blockio(FILE)["LowPrio"], DISKS.__getitem__) == {
        "weight": 80,
        "weightDevice": [{"major": 8, "minor": 16, "weight": 50}],
        "throttleReadBpsDevice": [
            {"major": 8, "minor": 0, "rate": 1 << 30},
            {"major": 8, "minor": 16, "rate": 50_000_000},
        ],
        "throttleWriteIOPSDevice": [{"major": 8, "minor": 16, "rate": 10_000}],
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Class: {}", "unknown key 'class'"),
        ("classes:\n  a:\n    - Wait: 1", r"classes.a\[0\]: unknown key 'wait'"),
        ("classes:\n  a:\n    - Weight: 5", r"classes.a\[0\].weight: 5 is not within 10 to 1000"),
        ("classes:\n  a:\n    - Weight: heavy", r"classes.a\[0\].weight: 'heavy' is not a quantity"),
        ("classes:\n  a:\n    - ThrottleReadBps: 5", "an entry without devices"),
        ("classes:\n  a:\n    - Devices: [/etc/passwd]", "'/etc/passwd' is not below /dev"),
        ("classes:\n  a:\n    - Devices: [/dev/sda]\n      ThrottleReadBps: -5", "is not a number from 0"),
        ("classes:\n\t- a", "line 2: indented by a tab"),
        ("classes:\n    a: {}\n  b: {}", "line 3: its indentation"),
        ("classes: &x", "line 1: .* YAML that noded does not read"),
        ("classes:\n  a: {}\n  a: {}", "line 3: key 'a' is repeated"),
        ("- a\n- b", "the document is an array"),
    ],
)
def test_a_mistake_in_the_file_is_named(text, words):
    with pytest.raises(InvalidArgument, match=words):
        parse_blockio(text)


def test_the_annotation_of_the_container_wins():
    key = "rdt.resources.beta.kubernetes.io"
    annotations = {f"{key}/pod": "gold", f"{key}/container.main": "silver"}
    assert class_of("rdt", annotations, "main") == (f"{key}/container.main", "silver")
    assert class_of("rdt", annotations, "other") == (f"{key}/pod", "gold")
    assert class_of("blockio", annotations, "main") is None


def test_rdt_classes_are_those_of_all_partitions():
    text = """
options:
  l3:
    optional: true
partitions:
  exclusive:
    l3Allocation: "60%"
    classes:
      gold:
        l3Allocation:
          all: "100%"
  shared:
    classes:
      silver: {}
  empty:
"""
    assert parse_rdt(text) == {"gold", "silver"}
    with pytest.raises(InvalidArgument, match=r"partitions.a.classes is"):
        parse_rdt("partitions:\n  a:\n    classes: [x]")


PLAIN = st.text("abcdefghijklm/", min_size=1, max_size=6)
TREES = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3)
        | st.dictionaries(st.text("abcdefgh", min_size=1, max_size=4), inner, min_size=1, max_size=3)
    ),
    max_leaves=8,
)


def written(value, indent=0) -> str:
    space = " " * indent
    if isinstance(value, dict):
        return "".join(
            f"{space}{key}: {inner}\n"
            if isinstance(inner, str)
            else f"{space}{key}:\n{written(inner, indent + 2)}"
            for key, inner in value.items()
        )
    lines = ""
    for item in value:
        below = f"{item}\n" if isinstance(item, str) else written(item, indent + 2).lstrip(" ")
        lines += f"{space}- {below}"
    return lines


@given(st.dictionaries(st.text("abcdefgh", min_size=1, max_size=4), TREES, min_size=1, max_size=3))
def test_nested_lists_and_mappings_are_read_as_written(document):
    assert parse_blocks(written(document)) == document


@given(st.text("ab:-[]{}\"'# \n,&", max_size=40))
def test_any_text_is_read_or_refused(text):
    try:
        parse_blocks(text)
    except InvalidArgument:
        return
