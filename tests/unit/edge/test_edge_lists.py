from __future__ import annotations

from dataclasses import replace

import pytest
from edge_fakes import FakeImages, Sink, container, image, sandbox
from hypothesis import given
from hypothesis import strategies as st

from noded.edge.cri import encode_container, encode_image, encode_pod, filters
from noded.edge.cri.entries import Entries
from noded.errors import InvalidArgument
from noded.model.image import ImageConfig
from noded.model.states import ContainerState, SandboxState
from noded.proto.runtime import v1


def counting(encode):
    calls = []

    def counted(view):
        calls.append(view.id)
        return encode(view)

    return Entries(counted), calls


def test_an_entry_is_encoded_once_however_often_it_is_listed():
    entries, calls = counting(encode_container.entry)
    views = [container(number) for number in range(50)]
    first = entries.message(views)
    assert entries.message(views) == first
    assert b"".join(entries.chunks(views)) == first
    assert entries.message(views[:10]) == first[: len(entries.message(views[:10]))]
    assert calls == [view.id for view in views]


def test_a_replaced_view_is_encoded_again_and_only_it():
    entries, calls = counting(encode_container.entry)
    views = [container(number) for number in range(5)]
    entries.message(views)
    views[2] = replace(views[2], state=ContainerState.EXITED)
    listed = v1.ListContainersResponse.parse(entries.message(views)).containers
    assert calls[5:] == [views[2].id]
    assert listed[2].state == v1.ContainerState.CONTAINER_EXITED


def test_an_equal_but_different_image_is_encoded_again():
    """Images compare by value; the cache must not."""
    entries, calls = counting(encode_image.entry)
    one, other = image(1), image(1)
    assert one == other
    entries.message([one])
    entries.message([other])
    assert len(calls) == 2


def test_entries_of_removed_objects_are_forgotten_in_the_end():
    entries, calls = counting(encode_pod.entry)
    old = [sandbox(number) for number in range(200)]
    entries.message(old)
    live = old[:3]
    entries.keep(live)
    assert len(entries._entries) == 3
    entries.message(live)
    assert len(calls) == 200


def test_text_that_is_not_unicode_does_not_break_a_list():
    """As of an image whose JSON says "\\ud800"."""
    entries = Entries(encode_image.entry)
    odd = image(1, config=ImageConfig(user="\ud800x", annotations={"a\udcff": "b"}))
    listed = v1.ListImagesResponse.parse(entries.message([odd, image(2)])).images
    assert [item.username for item in listed] == ["?x", ""]
    assert listed[0].spec.annotations == {"a?": "b"}
    assert (listed[0].size, listed[0].repo_tags) == (1001, ["docker.io/library/image:1"])


def test_the_message_is_what_a_plain_encoding_of_the_list_gives():
    pods, entries = [sandbox(n) for n in (1, 2, 3)], Entries(encode_pod.entry)
    assert entries.message(pods) == bytes(
        v1.ListPodSandboxResponse(items=[encode_pod.entry(p) for p in pods])
    )
    images, entries = [image(n) for n in (1, 2)], Entries(encode_image.entry)
    assert entries.message(images) == bytes(
        v1.ListImagesResponse(images=[encode_image.entry(i) for i in images])
    )


def test_chunks_are_bounded_whole_and_in_order():
    entries = Entries(encode_pod.entry)
    pods = [
        sandbox(n, config=replace(sandbox(n).config, annotations={"x": "y" * 300_000})) for n in range(1, 9)
    ]
    chunks = list(entries.chunks(pods))
    assert len(chunks) > 2
    assert all(len(chunk) <= 2**20 for chunk in chunks)
    ids = [pod.id for chunk in chunks for pod in v1.StreamPodSandboxesResponse.parse(chunk).pod_sandboxes]
    assert ids == [pod.id for pod in pods]


def test_an_entry_larger_than_a_chunk_goes_alone():
    entries = Entries(encode_pod.entry)
    big = sandbox(1, config=replace(sandbox(1).config, annotations={"x": "y" * 2_000_000}))
    assert [
        len(v1.StreamPodSandboxesResponse.parse(c).pod_sandboxes) for c in entries.chunks([big, sandbox(2)])
    ] == [
        1,
        1,
    ]
    assert list(entries.chunks([])) == []


PODS = [sandbox(1), sandbox(2, state=SandboxState.NOTREADY), sandbox(3)]
CONTAINERS = [
    container(1, pod=1),
    container(2, pod=1, state=ContainerState.EXITED),
    container(3, pod=2, state=ContainerState.CREATED),
]


def numbers(views):
    return [int(view.id[:2], 16) for view in views]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (None, [1, 2, 3]),
        (v1.PodSandboxFilter(), [1, 2, 3]),
        (v1.PodSandboxFilter(id="02" * 32), [2]),
        (v1.PodSandboxFilter(id="0303"), [3]),
        (v1.PodSandboxFilter(id="ff"), []),
        (v1.PodSandboxFilter(state=v1.PodSandboxStateValue()), [1, 3]),
        (v1.PodSandboxFilter(state=v1.PodSandboxStateValue(state=v1.PodSandboxState.SANDBOX_NOTREADY)), [2]),
        (v1.PodSandboxFilter(label_selector={"app": "a3"}), [3]),
        (v1.PodSandboxFilter(label_selector={"app": "a3", "x": "y"}), []),
        (v1.PodSandboxFilter(id="02", label_selector={"app": "a3"}), []),
    ],
)
def test_sandboxes_are_filtered(wanted, expected):
    assert numbers(filters.sandboxes(PODS, wanted)) == expected


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (None, [1, 2, 3]),
        (v1.ContainerFilter(), [1, 2, 3]),
        (v1.ContainerFilter(id="02"), [2]),
        (v1.ContainerFilter(pod_sandbox_id="01" * 32), [1, 2]),
        (v1.ContainerFilter(pod_sandbox_id="02"), [3]),
        (v1.ContainerFilter(state=v1.ContainerStateValue()), [3]),
        (v1.ContainerFilter(state=v1.ContainerStateValue(state=v1.ContainerState.CONTAINER_RUNNING)), [1]),
        (v1.ContainerFilter(label_selector={"tier": "front", "app": "a2"}), [2]),
        (v1.ContainerFilter(pod_sandbox_id="01", label_selector={"app": "a3"}), []),
    ],
)
def test_containers_are_filtered(wanted, expected):
    assert numbers(filters.containers(CONTAINERS, wanted)) == expected


def test_an_unknown_state_is_named():
    state = v1.ContainerStateValue(state=v1.ContainerState(9))
    with pytest.raises(InvalidArgument, match=r"^filter\.state\.state: unknown value 9"):
        filters.containers(CONTAINERS, v1.ContainerFilter(state=state))


def test_an_image_filter_names_one_image():
    store = FakeImages(Sink(), [image(1), image(2)])
    assert len(filters.images(store, None)) == 2
    assert len(filters.images(store, v1.ImageFilter(image=v1.ImageSpec()))) == 2
    wanted = v1.ImageFilter(image=v1.ImageSpec(image="docker.io/library/image:2"))
    assert list(filters.images(store, wanted)) == [image(2)]
    assert list(filters.images(store, v1.ImageFilter(image=v1.ImageSpec(image="other")))) == []


@given(
    st.lists(st.integers(1, 255), unique=True), st.dictionaries(st.sampled_from("ab"), st.sampled_from("xy"))
)
def test_what_passes_a_label_filter_has_all_its_labels_and_nothing_else_is_lost(ids, selector):
    views = [
        sandbox(n, config=replace(sandbox(n).config, labels={"a": "xy"[n % 2], "b": "xy"[n // 2 % 2]}))
        for n in ids
    ]
    passed = filters.sandboxes(views, v1.PodSandboxFilter(label_selector=selector))
    for view in views:
        assert (view in passed) == (selector.items() <= view.config.labels.items())
