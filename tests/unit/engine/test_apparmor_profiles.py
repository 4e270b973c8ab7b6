"""Which AppArmor profile a container gets that names none."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import trio

from noded.engine.apparmor import AppArmor
from noded.errors import FailedPrecondition
from noded.host import apparmor
from noded.model.container import ContainerSecurity
from noded.model.pod import ProfileType, SecurityProfile


@pytest.fixture
def default_for(monkeypatch):
    """`default_for(node, handler, security)` where the kernel has the profiles "node" and "handler"."""
    monkeypatch.setattr(apparmor, "apparmor_profiles", lambda: frozenset({"node", "handler"}))

    def ask(node, of_handler, security=None, *, enabled=True):
        profiles = AppArmor(SimpleNamespace(apparmor=enabled), node)
        return trio.run(profiles.default_for, security or ContainerSecurity(), of_handler)

    return ask


@pytest.mark.parametrize(
    ("node", "of_handler", "expected"),
    [("node", "", "node"), ("node", "handler", "handler"), ("", "handler", "handler"), ("", "", "")],
)
def test_the_handlers_profile_counts_before_the_nodes(default_for, node, of_handler, expected):
    assert default_for(node, of_handler) == expected


def test_a_profile_that_is_not_loaded_is_named_with_the_cure(default_for):
    with pytest.raises(FailedPrecondition, match=r"'missing' is not loaded.*apparmor_parser"):
        default_for("node", "missing")


def test_a_container_that_says_unconfined_gets_none(default_for):
    security = ContainerSecurity(apparmor=SecurityProfile(ProfileType.UNCONFINED))
    assert default_for("node", "handler", security) == ""


def test_a_privileged_container_gets_none(default_for):
    assert default_for("node", "handler", ContainerSecurity(privileged=True)) == ""


def test_a_kernel_without_apparmor_needs_none(default_for):
    assert default_for("node", "missing", enabled=False) == ""
