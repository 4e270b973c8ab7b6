from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noded.errors import FailedPrecondition, InvalidArgument
from noded.wire import digest as digests
from noded.wire.descriptor import Platform
from noded.wire.manifest import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    MAX_LAYERS,
    MAX_MANIFEST_BYTES,
    OCI_INDEX,
    OCI_MANIFEST,
    Index,
    Manifest,
    chain_ids,
    layer_refs,
    parse_config,
    parse_manifest,
)

A, B, C = (digests.of(name) for name in (b"a", b"b", b"c"))
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def descriptor(digest: str = A, size: Any = 5, **more: Any) -> dict[str, Any]:
    return {"mediaType": LAYER, "digest": digest, "size": size, **more}


def manifest(**changes: Any) -> bytes:
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(),
        "layers": [descriptor(B), descriptor(C)],
    }
    return json.dumps(
        {key: value for key, value in (document | changes).items() if value is not ...}
    ).encode()


def config(**changes: Any) -> bytes:
    document = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [B, C]}}
    return json.dumps(document | changes).encode()


def read(data: bytes, content_type: str = "") -> Manifest:
    parsed = parse_manifest(data, content_type)
    assert isinstance(parsed, Manifest)
    return parsed


def test_a_manifest_is_read() -> None:
    parsed = read(manifest(annotations={"k": "v"}, artifactType="x/y"))
    assert parsed.media_type == OCI_MANIFEST
    assert parsed.config.digest == A
    assert [layer.digest for layer in parsed.layers] == [B, C]
    assert parsed.annotations == {"k": "v"}
    assert parsed.artifact_type == "x/y"


def test_an_index_is_read_with_its_platforms() -> None:
    entry = descriptor(platform={"os": "linux", "architecture": "arm", "variant": "v7"})
    parsed = parse_manifest(json.dumps({"schemaVersion": 2, "manifests": [entry, descriptor(B)]}).encode())
    assert isinstance(parsed, Index)
    assert parsed.media_type == OCI_INDEX
    assert parsed.manifests[0].platform == Platform("linux", "arm", "v7")
    assert str(parsed.manifests[0].platform) == "linux/arm/v7"
    assert parsed.manifests[1].platform is None


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("", OCI_MANIFEST),
        (f"{DOCKER_MANIFEST}; charset=utf-8", DOCKER_MANIFEST),
        ("text/plain", OCI_MANIFEST),
    ],
)
def test_the_content_type_counts_only_when_the_document_is_silent(content_type: str, expected: str) -> None:
    assert read(manifest(mediaType=...), content_type).media_type == expected
    assert read(manifest(), content_type).media_type == OCI_MANIFEST


def test_a_document_that_is_both_manifest_and_index_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="two things at once"):
        parse_manifest(manifest(manifests=[]))
    with pytest.raises(InvalidArgument, match=r"config is missing"):
        parse_manifest(json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "manifests": []}).encode())
    index = parse_manifest(json.dumps({"schemaVersion": 2, "mediaType": DOCKER_LIST}).encode())
    assert isinstance(index, Index)


@pytest.mark.parametrize(
    "document",
    [
        {"schemaVersion": 1, "fsLayers": [], "history": []},
        {"schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v1+prettyjws"},
    ],
)
def test_schema_1_is_refused_with_the_cure(document: dict[str, Any]) -> None:
    with pytest.raises(FailedPrecondition, match="push it again"):
        parse_manifest(json.dumps(document).encode())


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[]", "manifest is an array"),
        (b"{}", "schemaVersion is None"),
        (b'{"schemaVersion": 2}', "config is missing"),
        (b" " * (MAX_MANIFEST_BYTES + 1), "more than"),
        (manifest(mediaType=5), "mediaType is a number"),
        (manifest(mediaType="text/html"), "'text/html'"),
        (manifest(config=[]), "config is an array"),
        (manifest(layers={}), "layers is an object"),
        (manifest(layers=[descriptor("md5:0")]), r"layers\[0\].digest"),
        (manifest(layers=[descriptor(), descriptor(size=-1)]), r"layers\[1\].size is -1"),
        (manifest(layers=[descriptor(size=True)]), r"layers\[0\].size is True"),
        (manifest(layers=[descriptor(size=1 << 41)]), r"layers\[0\].size"),
        (manifest(layers=[descriptor(size="5")]), r"layers\[0\].size"),
        (manifest(layers=[descriptor(platform="x")]), r"layers\[0\].platform is a string"),
        (manifest(annotations={"a": 1}), "annotations.a is a number"),
        (manifest(annotations={"a": "\ud800"}), "not valid Unicode"),
        (manifest(layers=[descriptor()] * (MAX_LAYERS + 1)), "501 layers"),
    ],
)
def test_a_bad_manifest_is_refused_with_the_field(data: bytes, reason: str) -> None:
    with pytest.raises(InvalidArgument, match=reason):
        parse_manifest(data)


def test_a_config_is_read() -> None:
    document = parse_config(
        config(
            config={
                "Env": ["A=b"],
                "Entrypoint": "one-word",
                "Cmd": ["x", "y"],
                "User": "1:2",
                "WorkingDir": "/w",
                "Volumes": {"/b": {}, "/a": {}},
                "StopSignal": "SIGINT",
                "Labels": {"l": "v"},
            }
        ),
        {"note": "n"},
    )
    read = document.config
    assert (read.env, read.entrypoint, read.cmd) == (("A=b",), ("one-word",), ("x", "y"))
    assert (read.user, read.working_dir, read.volumes) == ("1:2", "/w", ("/a", "/b"))
    assert (read.stop_signal, read.labels, read.annotations) == ("SIGINT", {"l": "v"}, {"note": "n"})
    assert (read.os, read.architecture, document.diff_ids) == ("linux", "amd64", (B, C))


@pytest.mark.parametrize(
    "empty", [{}, {"config": None}, {"config": {"Env": None, "Labels": None, "Volumes": None}}]
)
def test_an_absent_config_is_an_empty_one(empty: dict[str, Any]) -> None:
    read = parse_config(config(**empty)).config
    assert (read.env, read.cmd, read.labels, read.volumes, read.user) == ((), (), {}, (), "")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"{", "image config is not JSON"),
        (config(rootfs=None), "rootfs is missing"),
        (config(rootfs={"type": "x"}), "rootfs.type is 'x'"),
        (config(rootfs={"type": "layers", "diff_ids": ["x"]}), r"rootfs.diff_ids\[0\]"),
        (config(config=[1]), "config is an array"),
        (config(config={"Env": "A=b"}), "config.Env is a string"),
        (config(config={"Cmd": [1]}), r"config.Cmd\[0\] is a number"),
        (config(config={"Volumes": ["/a"]}), "config.Volumes is an array"),
    ],
)
def test_a_bad_config_is_refused_with_the_field(data: bytes, reason: str) -> None:
    with pytest.raises(InvalidArgument, match=reason):
        parse_config(data)


def test_chain_ids_follow_the_specification() -> None:
    first, second, third = chain_ids([A, B, C])
    assert first == A
    assert second == digests.of(f"{A} {B}".encode())
    assert third == digests.of(f"{second} {C}".encode())
    assert chain_ids([]) == ()


def test_layers_are_paired_with_diff_ids() -> None:
    refs = layer_refs(read(manifest()), parse_config(config()))
    assert [(ref.blob_digest, ref.diff_id, ref.chain_id) for ref in refs] == [
        (B, B, B),
        (C, C, digests.of(f"{B} {C}".encode())),
    ]


def test_layers_without_a_diff_id_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="2 layers, its config has 1"):
        layer_refs(read(manifest()), parse_config(config(rootfs={"type": "layers", "diff_ids": [B]})))
    strange = manifest(layers=[descriptor(B, mediaType="application/x-lzma")])
    with pytest.raises(InvalidArgument, match=r"layers\[0\].mediaType 'application/x-lzma'"):
        layer_refs(read(strange), parse_config(config(rootfs={"type": "layers", "diff_ids": [B]})))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(A),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
manifest_keys = st.sampled_from(["mediaType", "config", "layers", "manifests", "annotations", "artifactType"])
config_keys = st.sampled_from(["config", "rootfs", "os", "architecture"])


@given(st.dictionaries(manifest_keys, json_values, max_size=4))
def test_any_manifest_document_is_read_or_refused(changes: dict[str, Any]) -> None:
    for base in ({"schemaVersion": 2}, json.loads(manifest())):
        try:
            parse_manifest(json.dumps(base | changes).encode())
        except (InvalidArgument, FailedPrecondition):
            continue


@given(st.dictionaries(config_keys, json_values, max_size=4))
def test_any_config_document_is_read_or_refused(changes: dict[str, Any]) -> None:
    try:
        parse_config(json.dumps(json.loads(config()) | changes).encode())
    except InvalidArgument:
        return
