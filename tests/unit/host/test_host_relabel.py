"""The walk that labels a tree. An attribute that any file system takes stands in for the kernel's own."""

from __future__ import annotations

import os

import pytest

from noded.errors import FailedPrecondition, InvalidArgument, NotFound
from noded.host import beneath
from noded.host.lsm import check_selinux_context
from noded.host.relabel import check_relabel, relabel_tree

STAND_IN = "user.noded-test"
LABEL = "system_u:object_r:container_file_t:s0:c1,c2"


def never():
    """Nobody cancels."""


def relabel(path, label=LABEL):
    return relabel_tree(path, label, never, attribute=STAND_IN)


def label_of(path):
    try:
        return os.getxattr(path, STAND_IN).decode()
    except OSError:
        return None


@pytest.fixture
def tree(tmp_path):
    top = tmp_path / "volume"
    (top / "a" / "b").mkdir(parents=True)
    for name in ("file", "a/file", "a/b/.hidden", "a/b/odd\udcff name"):
        (top / name).write_text("x")
    try:
        os.setxattr(top, STAND_IN, b"")
        os.removexattr(top, STAND_IN)
    except OSError:
        pytest.skip("this file system has no user attributes")
    return top


def everything(top):
    return [top, *top.rglob("*")]


def test_every_file_of_a_tree_gets_the_label(tree):
    assert relabel(tree) == len(everything(tree))
    assert {label_of(path) for path in everything(tree)} == {LABEL}


def test_a_second_walk_changes_nothing_and_one_with_another_label_everything(tree):
    relabel(tree)
    before = (tree / "file").stat().st_ctime_ns
    assert relabel(tree) == 0
    assert (tree / "file").stat().st_ctime_ns == before
    assert relabel(tree, "other") == len(everything(tree))


def test_a_label_that_ends_with_a_nul_is_the_same(tree):
    os.setxattr(tree / "file", STAND_IN, LABEL.encode() + b"\0")
    assert relabel(tree / "file") == 0


def test_a_single_file_is_labelled(tree):
    assert relabel(tree / "file") == 1
    assert label_of(tree) is None


def test_without_openat2_the_walk_is_the_same(tree, monkeypatch):
    def missing(*_):
        raise OSError(38, "no such call")

    monkeypatch.setattr(beneath, "openat2", missing)
    assert relabel(tree) == len(everything(tree))


def test_a_directory_that_becomes_a_link_meanwhile_leads_nowhere(tree, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("x")
    calls = []

    def swap():
        calls.append(1)
        if len(calls) == 2:  # the top was read: `a` is about to be opened
            (tree / "a").rename(tmp_path / "gone")
            (tree / "a").symlink_to(outside)

    relabel_tree(tree, LABEL, swap, attribute=STAND_IN)
    assert label_of(outside) is None
    assert label_of(outside / "secret") is None
    assert len(calls) >= 2


def test_what_check_cancelled_raises_ends_the_walk(tree):
    class Stopped(Exception):
        pass

    def stop():
        raise Stopped

    with pytest.raises(Stopped):
        relabel_tree(tree, LABEL, stop, attribute=STAND_IN)
    assert label_of(tree / "a") is None


def test_a_deep_tree_costs_no_descriptors(tree):
    inner = tree
    for _ in range(400):
        inner = inner / "d"
        inner.mkdir()
    relabel(tree)
    assert label_of(inner) == LABEL


def test_a_missing_path_is_named(tmp_path):
    with pytest.raises(NotFound, match="nothing"):
        relabel(tmp_path / "nothing")


def test_a_walk_leaves_no_descriptor_open(tree):
    before = os.listdir("/proc/self/fd")
    relabel(tree)
    assert len(os.listdir("/proc/self/fd")) == len(before)


@pytest.mark.parametrize(
    "path", ["/", "/etc", "/usr/", "/home", "/var/lib", "/var/../etc", "/proc/1", "/dev/sda"]
)
def test_directories_of_the_node_are_refused(path):
    with pytest.raises(FailedPrecondition, match="not allowed"):
        check_relabel(path)


@pytest.mark.parametrize(
    "path", ["/srv/data", "/var/lib/kubelet/pods/u/volumes/x", "/home/me/data", "/development"]
)
def test_directories_of_pods_are_not(path):
    check_relabel(path)


def test_the_policy_is_asked_for_a_context(tmp_path):
    asked = tmp_path / "context"
    asked.write_bytes(b"")
    check_selinux_context(LABEL, file=asked)
    assert asked.read_bytes() == LABEL.encode() + b"\0"
    with pytest.raises(InvalidArgument, match="refuses 'bad'"):
        check_selinux_context("bad", file=tmp_path / "absent")
