"""Propagation against the node's own mounts."""

from __future__ import annotations

import pytest
from spec_cases import mount, mounted

from noded.errors import FailedPrecondition
from noded.model.container import MountPropagation
from noded.spec.container import container_spec
from noded.spec.mounts import destination

BOTH, DOWN = MountPropagation.BIDIRECTIONAL, MountPropagation.HOST_TO_CONTAINER


@pytest.mark.parametrize(
    ("mode", "shared", "slave"), [(BOTH, False, False), (BOTH, False, True), (DOWN, False, False)]
)
def test_propagation_that_the_nodes_mount_cannot_give_is_refused_with_the_cure(mode, shared, slave):
    resolved = mount("/data", shared=shared, slave=slave, propagation=mode)
    with pytest.raises(FailedPrecondition, match="`mount --make-shared /srv`"):
        container_spec(mounted(resolved))


@pytest.mark.parametrize(
    ("mode", "shared", "slave"), [(BOTH, True, False), (DOWN, True, False), (DOWN, False, True)]
)
def test_propagation_that_it_can_give_raises_that_of_the_root(mode, shared, slave):
    spec = container_spec(mounted(mount("/data", shared=shared, slave=slave, propagation=mode))).value
    assert spec["linux"]["rootfsPropagation"] == ("shared" if mode is BOTH else "slave")


def test_without_propagation_the_runtime_decides():
    assert "rootfsPropagation" not in container_spec(mounted(mount("/data"))).value["linux"]


@pytest.mark.parametrize(
    ("path", "canonical"),
    [("/a", "/a"), ("/a/", "/a"), ("//a//b", "/a/b"), ("/a/./b/../c", "/a/c"), ("/../x", "/x"), ("/", "/")],
)
def test_a_container_path_has_one_form(path, canonical):
    assert destination(path) == canonical
