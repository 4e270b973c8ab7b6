"""Which seccomp annotation counts for a container."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noded.errors import InvalidArgument
from noded.model.container import ContainerConfig, ContainerSecurity
from noded.model.pod import ProfileType, SecurityProfile
from noded.spec.seccomp.annotations import (
    ACTION_KEYS,
    PROFILE_KEYS,
    NotifyMode,
    notify_mode,
    profile_reference,
)

OWN, NEW, OLD = PROFILE_KEYS
ALL = ("*",)


def container(kind: ProfileType | None = None, *, privileged: bool = False) -> ContainerConfig:
    path = "/p.json" if kind is ProfileType.LOCALHOST else ""
    seccomp = None if kind is None else SecurityProfile(kind, path)
    return ContainerConfig(
        "web", 0, "image", security=ContainerSecurity(seccomp=seccomp, privileged=privileged)
    )


def chosen(pod=None, image=None, allowed=ALL, config=None) -> str | None:
    found = profile_reference(pod or {}, image or {}, config or container(), allowed)
    return found.reference if found else None


# (whose, suffix) from the strongest to the weakest
PLACES = [("pod", "/web"), ("pod", "/POD"), ("image", ""), ("image", "/web"), ("image", "/POD")]
EVERY = [(whose, key + suffix) for whose, suffix in PLACES for key in PROFILE_KEYS]


@given(st.sets(st.sampled_from(EVERY)))
def test_the_first_of_pod_container_pod_all_image_bare_image_container_image_all_wins(present):
    given_ = {"pod": {}, "image": {}}
    for whose, key in present:
        given_[whose][key] = f"{whose} {key}"
    strongest = next((place for place in EVERY if place in present), None)
    assert chosen(given_["pod"], given_["image"]) == (" ".join(strongest) if strongest else None)


def test_the_bare_key_counts_on_images_only():
    assert chosen(pod={OLD: "a"}) is None
    assert chosen(image={OLD: "a"}) == "a"


def test_another_containers_annotation_does_not_count():
    assert chosen(pod={f"{OLD}/db": "a"}, image={f"{NEW}/db": "a"}) is None


@pytest.mark.parametrize(
    ("allowed", "reference"),
    [
        ((), None),
        (("io.kubernetes.*",), None),
        ((f"{OLD}/POD",), "old"),
        ((OLD,), "old"),  # as CRI-O's configuration names it
        (("seccomp-profile.*",), "own"),
        ((NEW,), "new"),
    ],
)
def test_an_annotation_counts_only_if_its_handler_allows_it(allowed, reference):
    annotations = {f"{OLD}/POD": "old", f"{NEW}/POD": "new", f"{OWN}/POD": "own"}
    assert chosen(pod=annotations, allowed=allowed) == reference
    assert chosen(image=annotations, allowed=allowed) == reference


@pytest.mark.parametrize(
    ("config", "counts"),
    [
        (container(), True),
        (container(ProfileType.UNCONFINED), True),
        (container(ProfileType.RUNTIME_DEFAULT), False),
        (container(ProfileType.LOCALHOST), False),
        (container(privileged=True), False),
    ],
)
def test_it_fills_a_gap_only(config, counts):
    assert (chosen(pod={f"{OLD}/POD": "a"}, config=config) == "a") is counts


def test_an_empty_annotation_is_named():
    with pytest.raises(
        InvalidArgument, match=r"annotation seccomp-profile\.crio\.io/web of the pod is empty"
    ):
        chosen(pod={f"{NEW}/web": " "})


@pytest.mark.parametrize("key", ACTION_KEYS)
@pytest.mark.parametrize("suffix", ["", "/POD", "/web"])
def test_an_action_is_known_by_each_of_its_names(key, suffix):
    for mode in (NotifyMode.STOP, NotifyMode.LOG):
        assert notify_mode({key + suffix: mode.value}, "web", ALL) is mode
    assert notify_mode({key + suffix: "stop"}, "web", ()) is None
    with pytest.raises(InvalidArgument, match="'kill' is unknown, use stop or log"):
        notify_mode({key + suffix: "kill"}, "web", ALL)


def test_a_containers_own_action_comes_first():
    own, _, old = ACTION_KEYS
    assert notify_mode({f"{old}/web": "log", own: "stop"}, "web", ALL) is NotifyMode.LOG


def test_recording_and_reporting_exclude_each_other():
    record = "seccomp-record.noded.io"
    assert notify_mode({record: "true"}, "web", ALL) is NotifyMode.RECORD
    assert notify_mode({record: "false", ACTION_KEYS[0]: "log"}, "web", ALL) is NotifyMode.LOG
    with pytest.raises(InvalidArgument, match="exclude each other"):
        notify_mode({record: "true", ACTION_KEYS[0]: "log"}, "web", ALL)
    with pytest.raises(InvalidArgument, match="neither true nor false"):
        notify_mode({f"{record}/web": "yes"}, "web", ALL)
