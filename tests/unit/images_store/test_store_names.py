"""What a reference means, what moves, and what is garbage."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noded.errors import InvalidArgument
from noded.images.gc import chain_of, find_garbage
from noded.images.names import Names, is_pinned
from noded.model.image import Artifact, Image, ImageConfig, LayerRef
from noded.store.images import decode, encode
from noded.wire import reference as references


def digest(text: str) -> str:
    return "sha256:" + text.encode().hex().ljust(64, "0")[:64]


def image(name: str, *tags: str, digests: tuple[str, ...] = (), layers: str = "") -> Image:
    return Image(
        id=digest(name),
        manifest_digest=digest(f"m{name}"),
        tags=tags,
        digests=digests,
        size_bytes=1,
        layers=tuple(
            LayerRef(digest(f"b{layer}"), digest(f"d{layer}"), digest(f"c{layer}"), 1, "tar")
            for layer in layers
        ),
        config=ImageConfig(),
    )


def names(*images: Image) -> Names:
    known = Names()
    known.put(images)
    return known


def test_an_image_is_found_by_every_name_it_has() -> None:
    one = image("a", "docker.io/library/nginx:latest", digests=(f"quay.io/x@{digest('m')}",))
    known = names(one, image("b"))
    for text in (
        one.id,
        one.id[7:],
        one.id[7:15],
        f"sha256:{one.id[7:15]}",
        "nginx",
        "nginx:latest",
        "docker.io/nginx",
        f"quay.io/x@{digest('m')}",
        f"quay.io/x:tag@{digest('m')}",
    ):
        assert known.find(text) is one, text
    for text in ("nginx:1", "quay.io/nginx", "abcd", digest("zz")):
        assert known.find(text) is None, text


def test_an_ambiguous_start_of_an_id_is_refused() -> None:
    one, two = (replace(image("a"), id=f"sha256:abcd{end * 60}") for end in "01")
    known = names(one, two)
    assert known.find("abcd0") is one
    with pytest.raises(InvalidArgument, match=r"ambiguous.*sha256:abcd0.*sha256:abcd1"):
        known.find("abcd")


@pytest.mark.parametrize("text", ["", "host.io/Case", "a b", "x:y:z", "a@sha256:1"])
def test_a_malformed_reference_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        names().find(text)


def test_a_name_has_one_owner() -> None:
    one, two = image("a", "localhost/a:1", "localhost/a:2"), image("b", "localhost/a:1")
    known = names(one)
    changed = known.merged(two, ["localhost/b"])
    assert [(item.id, item.tags) for item in changed] == [
        (two.id, ("localhost/a:1", "localhost/b:latest")),
        (one.id, ("localhost/a:2",)),
    ]
    known.put(changed)
    assert known.find("localhost/a:1") is changed[0]
    known.drop(two.id)
    known.drop(two.id)
    assert known.find("localhost/a:1") is None
    assert known.find("localhost/a:2") is changed[1]


def test_an_image_keeps_its_names_and_age_when_it_is_pulled_again() -> None:
    old = replace(image("a", "localhost/a:1", digests=("localhost/a@" + digest("1"),)), created_at_ns=5)
    new = replace(image("a", "localhost/a:2", digests=("localhost/a@" + digest("2"),)), created_at_ns=9)
    [merged] = names(old).merged(new, [])
    assert merged.tags == ("localhost/a:1", "localhost/a:2")
    assert merged.digests == (*old.digests, *new.digests)
    assert merged.created_at_ns == 5


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.lists(st.sampled_from("1234"), max_size=3)), max_size=12)
)
def test_after_any_sequence_every_tag_has_the_owner_that_got_it_last(
    steps: list[tuple[str, list[str]]],
) -> None:
    known = Names()
    expected: dict[str, str] = {}
    for name, tags in steps:
        full = [f"localhost/t:{tag}" for tag in tags]
        known.put(known.merged(image(name, *full), []))
        expected.update({tag: digest(name) for tag in full})
    assert {tag: one.id for one in known for tag in one.tags} == expected
    for tag, owner in expected.items():
        found = known.find(tag)
        assert found is not None
        assert found.id == owner


@pytest.mark.parametrize(
    ("pattern", "pinned"),
    [
        ("registry.k8s.io/pause:3.9", True),
        ("registry.k8s.io/*", True),
        ("*pause*", True),
        ("pause:3.9", False),
        ("registry.k8s.io/pause", False),
        ("[", False),
    ],
)
def test_pinned_patterns_are_references_or_globs(pattern: str, pinned: bool) -> None:
    assert is_pinned(image("a", "registry.k8s.io/pause:3.9"), [pattern]) is pinned


def test_short_references_pin_what_they_mean() -> None:
    assert is_pinned(image("a", "docker.io/library/busybox:latest"), ["busybox"])


def test_what_nobody_names_is_garbage() -> None:
    kept, gone = image("a", layers="xy"), image("b", layers="xz")
    stored = [*_blobs(kept), *_blobs(gone)]
    garbage = find_garbage(
        images=[kept],
        leased=[digest("bz")],
        in_use=[],
        blobs=stored,
        layers=[layer.chain_id for layer in (*kept.layers, *gone.layers)],
    )
    assert garbage.blobs == {gone.id, gone.manifest_digest}
    assert garbage.layers == {digest("cz")}


def test_manifests_that_digest_references_name_are_kept() -> None:
    one = image("a", digests=(f"localhost/a@{digest('index')}",))
    garbage = find_garbage(images=[one], leased=(), in_use=(), blobs=[digest("index")], layers=())
    assert garbage.blobs == frozenset()


@pytest.mark.parametrize("in_use", [None, chain_of(image("a", layers="x").layers)])
def test_layers_that_containers_may_need_are_kept(in_use: frozenset[str] | None) -> None:
    garbage = find_garbage(images=[], leased=(), in_use=in_use, blobs=[digest("bx")], layers=[digest("cx")])
    assert garbage.blobs == {digest("bx")}
    assert garbage.layers == frozenset()


def test_compressed_layers_go_when_they_are_not_to_be_kept() -> None:
    one = image("a", layers="x")
    garbage = find_garbage(
        images=[one], leased=(), in_use=(), blobs=_blobs(one), layers=[digest("cx")], keep_blobs=False
    )
    assert garbage.blobs == {digest("bx")}
    assert garbage.layers == frozenset()


def _blobs(one: Image) -> list[str]:
    return [one.id, one.manifest_digest, *(layer.blob_digest for layer in one.layers)]


texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=10)
configs = st.builds(
    ImageConfig,
    env=st.lists(texts).map(tuple),
    entrypoint=st.lists(texts).map(tuple),
    user=texts,
    labels=st.dictionaries(texts, texts),
)


@given(configs, st.integers(0, 2**63), st.booleans())
def test_rows_keep_everything(config: ImageConfig, created_at_ns: int, pinned: bool) -> None:
    one = replace(
        image("a", "localhost/a:1", layers="xyz"), config=config, created_at_ns=created_at_ns, pinned=pinned
    )
    assert decode(encode(one)) == one


def test_rows_of_a_later_version_are_read() -> None:
    stored = json.loads(encode(image("a", layers="x")))
    stored["future"] = stored["config"]["future"] = stored["layers"][0]["future"] = 1
    assert decode(json.dumps(stored)) == image("a", layers="x")


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda part: st.lists(part) | st.dictionaries(st.text(), part)
    )
)
def test_rows_that_are_no_images_are_told_apart(value: object) -> None:
    with pytest.raises(ValueError, match="not an image record"):
        decode(json.dumps(value))


def test_a_short_name_is_looked_up_under_all_its_meanings() -> None:
    one, two = image("a", "x.io/app:1"), image("b", "y.io/app:1", "y.io/only:latest")
    known = names(one, two)

    def meanings(text: str) -> list[references.Reference]:
        return [references.parse(f"{host}/{text}") for host in ("x.io", "y.io")]

    assert known.find("app:1", meanings) == one
    assert known.find("only", meanings) == two
    assert known.find("none", meanings) is None
    assert known.find("app:1") is None
    assert known.find(one.id, meanings) == one


def test_an_artifact_is_stored_and_keeps_its_configuration_and_blobs() -> None:
    model = replace(image("a", layers="xy"), artifact=Artifact("application/x", digest("cfg")))
    assert decode(encode(model)) == model
    blobs = [digest(text) for text in ("ma", "a", "cfg", "bx", "by")]
    garbage = find_garbage(
        images=[model], leased=(), in_use=(), blobs=blobs, layers=model.chain_ids, keep_blobs=False
    )
    assert garbage.blobs == {digest("a")}
    assert garbage.layers == set()
