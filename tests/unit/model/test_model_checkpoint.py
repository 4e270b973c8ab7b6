"""The files of checkpoint archives, which anybody may have written."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noded.errors import InvalidArgument
from noded.model.checkpoint import (
    CheckpointConfig,
    base_images,
    deleted_paths,
    dumped_spec,
    missing_mounts,
    parse_object,
)

IMAGE = "sha256:" + "a" * 64
CONFIG = CheckpointConfig("c" * 64, "main", "example.com/app:1", IMAGE, "runc", 1, 1_700_000_000_000_000_002)


def test_what_is_written_names_its_image_exactly_and_has_go_s_times():
    data = CONFIG.to_json()
    assert base_images(data) == ("sha256:" + "a" * 64, "example.com/app:1")
    value = json.loads(data)
    assert value["createdTime"] == "1970-01-01T00:00:00.000000001Z"
    assert value["checkpointedTime"] == "2023-11-14T22:13:20.000000002Z"


def test_an_id_without_its_algorithm_is_cri_o_s():
    data = json.dumps({"rootfsImageRef": "b" * 64, "rootfsImage": "x"}).encode()
    assert base_images(data) == ("sha256:" + "b" * 64, "x")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"rootfsImage": 1}', '{"rootfsImageRef": ""}', "[" * 100_000]
)
def test_what_names_no_image_is_refused(text):
    with pytest.raises(InvalidArgument, match=r"config\.dump"):
        base_images(text.encode())


@pytest.mark.parametrize("path", ["", "/", "..", "a/../b", "./a", "a\0b", 1, None])
def test_paths_to_delete_never_leave_the_root(path):
    with pytest.raises(InvalidArgument, match=r"deleted\.files"):
        deleted_paths(json.dumps(["fine", path]).encode())


def test_paths_to_delete_are_as_written():
    assert deleted_paths(b'["etc/group", "/a b"]') == ("etc/group", "/a b")
    assert deleted_paths(b"null") == ()


def test_mounts_of_the_checkpoint_must_be_there_again():
    dumped = {"mounts": [{"destination": "/data/"}, {"destination": "/proc"}, {"destination": "/host"}, 1]}
    spec = {"mounts": [{"destination": "/proc"}, {"destination": "/data"}]}
    assert missing_mounts(dumped, spec) == ["/host"]
    assert missing_mounts({"mounts": "no list"}, spec) == []


def test_the_dumped_spec_has_the_annotations_where_cri_o_looks():
    value = json.loads(dumped_spec({"annotations": {"x": "y"}, "process": {}}, {"a": "b"}))
    assert value["annotations"] == {"x": "y", "io.kubernetes.cri-o.Annotations": '{"a": "b"}'}


_DOCUMENTS = st.recursive(st.none() | st.booleans() | st.text(), st.lists).map(
    lambda v: json.dumps(v).encode()
)


@given(st.binary() | _DOCUMENTS)
def test_any_bytes_are_parsed_or_refused(data):
    for parse in (base_images, deleted_paths, lambda data: parse_object(data, "spec.dump")):
        with suppress(InvalidArgument):
            parse(data)
