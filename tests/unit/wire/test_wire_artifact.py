"""Artifacts: which manifests are ones, and which names their files may have."""

from __future__ import annotations

import json
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noded.errors import InvalidArgument
from noded.wire import digest as digests
from noded.wire.artifact import EMPTY, TITLE, artifact_files, artifact_layers, parse_artifact
from noded.wire.manifest import OCI_CONFIG, OCI_MANIFEST, Manifest, parse_manifest

TAR = "application/vnd.oci.image.layer.v1.tar+gzip"
A, B = digests.of(b"a"), digests.of(b"b")


def manifest(*layers: tuple[str, str, str], config: str = EMPTY, artifact_type: str = "") -> Manifest:
    """Layers as (media type, digest, title)."""
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": artifact_type,
        "config": {"mediaType": config, "digest": digests.of(b"{}"), "size": 2},
        "layers": [
            {
                "mediaType": media_type,
                "digest": digest,
                "size": 1,
                "annotations": {TITLE: title} if title else {},
            }
            for media_type, digest, title in layers
        ],
    }
    parsed = parse_manifest(json.dumps(document).encode())
    assert isinstance(parsed, Manifest)
    return parsed


def titles(*names: str) -> list[str]:
    layers = [("text/plain", digests.of(str(n).encode()), name) for n, name in enumerate(names)]
    return [file.path for file in artifact_files(manifest(*layers))]


@pytest.mark.parametrize(
    ("media_type", "config", "artifact_type", "expected"),
    [
        (TAR, OCI_CONFIG, "", None),
        (TAR, OCI_CONFIG, "application/x", None),
        ("text/plain", OCI_CONFIG, "", None),
        ("text/plain", OCI_CONFIG, "application/x", "application/x"),
        (TAR, EMPTY, "application/x", "application/x"),
        (TAR, "application/vnd.unknown.config.v1+json", "", "application/vnd.unknown.config.v1+json"),
    ],
)
def test_an_artifact_is_told_by_its_configuration_and_type(
    media_type: str, config: str, artifact_type: str, expected: str | None
) -> None:
    found = parse_artifact(manifest((media_type, A, ""), config=config, artifact_type=artifact_type))
    assert (found.type if found else None) == expected


def test_files_have_their_titles_and_else_their_digests() -> None:
    made = manifest(("text/plain", A, "models/a.bin"), ("text/plain", B, ""))
    files = [(file.path, file.blob_digest) for file in artifact_files(made)]
    assert files == [("models/a.bin", A), (B.replace(":", "-"), B)]


def test_the_empty_layer_is_no_file() -> None:
    assert artifact_files(manifest((EMPTY, A, ""))) == ()


def test_all_blobs_have_one_tree_that_depends_on_the_manifest() -> None:
    made = manifest(("text/plain", A, "a"), ("text/plain", B, "b"))
    layers = artifact_layers(made, A)
    assert [layer.blob_digest for layer in layers] == [A, B]
    (tree,) = {layer.chain_id for layer in layers}
    assert tree not in (A, B)
    assert tree != artifact_layers(made, B)[0].chain_id


@pytest.mark.parametrize(
    "title",
    [
        "/etc/passwd",
        "../x",
        "a/../b",
        ".",
        "a/./b",
        "a//b",
        "a/",
        "x" * 256,
        "\0",
        "/".join(["d" * 200] * 12),
    ],
)
def test_a_title_that_leaves_the_root_is_refused(title: str) -> None:
    with pytest.raises(InvalidArgument, match=r"layers\[0\].annotations"):
        titles(title)


def test_titles_that_get_in_each_others_way_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="two files"):
        titles("a", "a")
    with pytest.raises(InvalidArgument, match="both a file and a directory"):
        titles("a/b/c", "a")
    assert titles("a/b", "a/c", "d") == ["a/b", "a/c", "d"]


@given(st.text(max_size=40))
def test_every_accepted_title_stays_below_the_root(title: str) -> None:
    try:
        (path,) = titles(title)
    except InvalidArgument:
        return
    assert not PurePosixPath(path).is_absolute()
    assert not {"", ".", ".."} & set(path.split("/"))
