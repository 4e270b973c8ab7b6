"""Which files hold the credentials of a namespace, and what becomes of the one for a single pull."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from pull_world import World

from noded.errors import DataLoss, InvalidArgument
from noded.images.namespace_files import namespace_file
from noded.images.namespace_logins import NamespaceLogins
from noded.wire.reference import parse

IMAGE = parse("quay.io/crio/fedora-crio-ci:latest")
# How CRI-O's credential provider names the file of this repository: `NAMESPACE-SHA256(host/path).json`.
ONCE = "default-7aa25047c59c6c2e20b839f5b9820e3702dade4a97154d4df1f5cd1a9b44cfde.json"


def test_the_file_for_one_pull_goes_before_that_of_the_namespace(tmp_path: Path) -> None:
    assert NamespaceLogins(tmp_path).files("default", IMAGE) == (tmp_path / ONCE, tmp_path / "default.json")


def test_a_pull_for_no_pod_or_without_a_directory_has_none(tmp_path: Path) -> None:
    assert NamespaceLogins(tmp_path).files("", IMAGE) == ()
    assert NamespaceLogins(None).files("default", IMAGE) == ()


def test_after_the_pull_only_its_own_file_is_gone(tmp_path: Path) -> None:
    others = [tmp_path / "default.json", tmp_path / ONCE.replace("default", "team")]
    for path in (*others, tmp_path / ONCE):
        path.touch()
    logins = NamespaceLogins(tmp_path)
    for _ in range(2):
        trio.run(logins.pulled, "default", IMAGE)
        assert sorted(tmp_path.iterdir()) == sorted(others)
    trio.run(logins.pulled, "../x", IMAGE)
    trio.run(NamespaceLogins(None).pulled, "default", IMAGE)


@given(st.text(max_size=80))
def test_a_namespace_is_a_plain_name_or_refused(namespace: str) -> None:
    base = Path("/base")
    try:
        path = namespace_file(base, namespace)
    except InvalidArgument:
        return
    assert path.parent == base
    assert path.name == f"{namespace}.json"
    assert not {"/", ".", "\0"} & set(namespace)


@pytest.mark.parametrize("namespace", ["", "..", "a/b", "A", "a.b", "a b"])
def test_what_is_no_namespace_is_refused(namespace: str) -> None:
    with pytest.raises(InvalidArgument, match="no name of a Kubernetes namespace"):
        namespace_file(Path("/base"), namespace)


def test_the_file_for_one_pull_is_gone_also_when_the_end_of_the_pull_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "logins").mkdir()
    world = World(tmp_path, auth_dir=tmp_path / "logins")
    world.conf.write_text('[[registry]]\nlocation = "quay.io"\nblocked = true\n')
    (tmp_path / "logins" / ONCE).write_text("{}")

    async def release(owner: str) -> None:
        raise DataLoss("the database is damaged")

    monkeypatch.setattr(world.library, "release", release)

    async def main() -> None:
        async with world.running() as puller:
            with pytest.raises(DataLoss):
                await puller.pull(str(IMAGE), None, "default")

    trio.run(main)
    assert list((tmp_path / "logins").iterdir()) == []
