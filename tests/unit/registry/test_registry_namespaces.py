"""Which files hold the credentials of a namespace, and what becomes of the one for a single pull."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from pull_world import World
from registry_fakes import FakeRegistry, stall

from noded.errors import DataLoss, InvalidArgument, PermissionDenied
from noded.images.auth import RawAuthFile, parse_auth_file
from noded.images.namespace_files import namespace_file
from noded.images.namespace_logins import NamespaceLogins
from noded.wire.reference import parse

IMAGE = parse("quay.io/crio/fedora-crio-ci:latest")
# How CRI-O's credential provider names the file of this repository: `NAMESPACE-SHA256(host/path).json`.
ONCE = "default-7aa25047c59c6c2e20b839f5b9820e3702dade4a97154d4df1f5cd1a9b44cfde.json"


def leave(directory: Path, user: str, host: str = "registry.example") -> None:
    """As the credential provider does: a whole file takes the place of the last one."""
    auth = base64.b64encode(f"{user}:right".encode()).decode()
    fresh = directory / "fresh"
    fresh.write_text(json.dumps({"auths": {host: {"auth": auth}}}))
    fresh.rename(once(directory, host) if host != "registry.example" else directory / ONCE)


def once(directory: Path, host: str) -> Path:
    return directory / f"default-{hashlib.sha256(f'{host}/a/b'.encode()).hexdigest()}.json"


def user_of(file: RawAuthFile | None) -> str:
    if file is None:
        return ""
    return parse_auth_file(file.data, file.source).logins["registry.example"].username


def test_a_file_that_was_handed_over_is_taken_by_the_call_that_it_precedes(tmp_path: Path) -> None:
    others = [tmp_path / "default.json", tmp_path / ONCE.replace("default", "team")]
    for path in others:
        path.touch()
    leave(tmp_path, "ann")
    logins = NamespaceLogins(tmp_path)

    async def main() -> None:
        async with logins.handed_over("default", [parse("quay.io/crio/other"), IMAGE]) as (none, mine):
            assert none is None
            assert user_of(mine) == "ann"
            assert "right" not in repr(mine)
            assert not (tmp_path / ONCE).exists()
        async with logins.handed_over("default", [IMAGE]) as found:
            assert found == (None,)

    trio.run(main)
    assert sorted(tmp_path.iterdir()) == sorted(others)
    assert logins.files("default") == (tmp_path / "default.json",)


def test_what_is_left_while_a_pull_runs_outlives_it(tmp_path: Path) -> None:
    logins = NamespaceLogins(tmp_path)

    async def main() -> None:
        leave(tmp_path, "ann")
        async with logins.handed_over("default", [IMAGE]) as (first,):
            leave(tmp_path, "bob")
        async with logins.handed_over("default", [IMAGE]) as (second,):
            assert (user_of(first), user_of(second)) == ("ann", "bob")

    trio.run(main)


def test_of_two_calls_whose_files_became_one_both_have_it(tmp_path: Path) -> None:
    logins = NamespaceLogins(tmp_path)

    async def main() -> None:
        leave(tmp_path, "ann")
        leave(tmp_path, "bob")
        async with logins.handed_over("default", [IMAGE]) as (first,):
            async with logins.handed_over("default", [IMAGE]) as (second,):
                assert user_of(first) == user_of(second) == "bob"
            async with logins.handed_over("team", [IMAGE]) as (other,):
                assert other is None
            async with logins.handed_over("default", [parse("quay.io/crio/other")]) as (other,):
                assert other is None
        async with logins.handed_over("default", [IMAGE]) as (late,):
            assert late is None

    trio.run(main)


def test_without_a_directory_or_a_pod_nothing_was_handed_over(tmp_path: Path) -> None:
    leave(tmp_path, "ann")

    async def main() -> None:
        for logins, namespace in (
            (NamespaceLogins(tmp_path), ""),
            (NamespaceLogins(tmp_path), "../x"),
            (NamespaceLogins(None), "default"),
        ):
            async with logins.handed_over(namespace, [IMAGE]) as found:
                assert found == (None,)
        assert NamespaceLogins(tmp_path).files("") == NamespaceLogins(None).files("default") == ()

    trio.run(main)
    assert (tmp_path / ONCE).exists()
    with pytest.raises(InvalidArgument):
        NamespaceLogins(tmp_path).files("../x")


def test_a_pull_does_not_share_one_that_has_another_credential(
    tmp_path: Path, registry: FakeRegistry
) -> None:
    directory = tmp_path / "logins"
    directory.mkdir()
    world = World(tmp_path, auth_dir=directory)
    world.trust(registry)
    registry.content.auth, registry.content.login = "basic", ("ann", "right")
    registry.on("blobs/", stall(after=10), times=9)
    name = f"{registry.host}/a/b:t"

    async def main() -> None:
        async with world.running() as puller, trio.open_nursery() as nursery:
            leave(directory, "ann", registry.host)
            nursery.start_soon(puller.pull, name, None, "default")
            await registry.until_stalled()  # she may read it, and has got so far
            leave(directory, "eve", registry.host)
            with pytest.raises(PermissionDenied):
                await puller.pull(name, None, "default")
            nursery.cancel_scope.cancel()

    trio.run(main)
    assert list(directory.iterdir()) == []


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
