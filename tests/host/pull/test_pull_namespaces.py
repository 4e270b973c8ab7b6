"""Registry credentials that the administrator gives to single namespaces, at a real private registry."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from pull_node import IMAGE, Node, check

from noded.errors import InvalidArgument, PermissionDenied, SignatureValidationFailed
from noded.images.library import Library
from noded.images.pull import Puller
from noded.model.image import Credential
from tests.support.registry import PASSWORD, USER, Registry

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("docker-registry") is None, reason="needs docker-registry"),
]


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("private"), private=True) as running:
        running.push(IMAGE, "team/app", "one")
        yield running


@pytest.fixture
def node(tmp_path: Path, private: Registry) -> Node:
    made = Node(tmp_path)
    made.trust(private)
    made.auth_dir.mkdir()
    return made


def write(path: Path, host: str, password: str = PASSWORD) -> Path:
    login = base64.b64encode(f"{USER}:{password}".encode()).decode()
    path.write_text(json.dumps({"auths": {host: {"auth": login}}}))
    return path


def test_a_namespace_has_its_own_credentials_and_others_do_not(node: Node, private: Registry) -> None:
    name = f"{private.host}/team/app:one"
    write(node.auth_dir / "team.json", private.host)
    write(node.auth_dir / "guest.json", private.host, "wrong")

    async def work(puller: Puller, library: Library) -> None:
        with pytest.raises(PermissionDenied, match="wants a login"):
            await puller.pull(name)
        with pytest.raises(PermissionDenied, match="wants a login"):
            await puller.pull(name, namespace="other")
        assert await puller.pull(name, namespace="team") == IMAGE.id
        check(library, name)
        # Also while the image is here.
        for namespace, words in (("other", "wants a login"), ("guest", "refused the login")):
            with pytest.raises(PermissionDenied, match=words):
                await puller.pull(name, namespace=namespace)
        assert await puller.pull(name, namespace="team") == IMAGE.id
        # No restart is needed, and the node's own file still comes after that of the namespace.
        write(node.auth, private.host)
        assert await puller.pull(name, namespace="other") == IMAGE.id
        with pytest.raises(PermissionDenied, match="refused the login"):
            await puller.pull(name, namespace="guest")
        # The pod's pull secret goes before both.
        good = Credential(username=USER, password=PASSWORD)
        assert await puller.pull(name, good, namespace="guest") == IMAGE.id

    node.run(work)


def test_they_count_at_a_mirror(node: Node, private: Registry) -> None:
    node.conf.write_text(
        '[[registry]]\nlocation = "quay.io"\nblocked = false\n'
        f'[[registry.mirror]]\nlocation = "{private.host}"\ninsecure = true\n'
        '[[registry]]\nlocation = "quay.io/nothing"\n'
    )
    write(node.auth_dir / "team.json", private.host)
    secret = Credential(username="for", password="quay.io")

    async def work(puller: Puller, library: Library) -> None:
        assert await puller.pull("quay.io/team/app:one", secret, namespace="team") == IMAGE.id
        check(library, "quay.io/team/app:one")

    node.run(work)


@pytest.mark.parametrize("good", [True, False])
def test_what_the_credential_provider_leaves_is_for_one_pull(
    node: Node, private: Registry, good: bool
) -> None:
    repository = f"{private.host}/team/app"
    digest = hashlib.sha256(repository.encode()).hexdigest()
    once = node.auth_dir / f"team-{digest}.json"
    other = write(node.auth_dir / f"other-{digest}.json", private.host)

    async def work(puller: Puller, library: Library) -> None:
        write(once, private.host, PASSWORD if good else "wrong")
        if good:
            assert await puller.pull(f"{repository}:one", namespace="team") == IMAGE.id
        else:
            with pytest.raises(PermissionDenied, match="refused the login"):
                await puller.pull(f"{repository}:one", namespace="team")
        assert not once.exists()
        with pytest.raises(PermissionDenied, match="wants a login"):
            await puller.pull(f"{repository}:one", namespace="team")
        assert other.exists()

    node.run(work)


def test_a_file_that_is_wrong_is_named_without_its_secrets(node: Node, private: Registry) -> None:
    (node.auth_dir / "team.json").write_text('{"auths": {"secret')

    async def work(puller: Puller, library: Library) -> None:
        with pytest.raises(InvalidArgument, match=f"^{node.auth_dir}/team.json is not JSON") as caught:
            await puller.pull(f"{private.host}/team/app:one", namespace="team")
        assert "secret" not in str(caught.value)

    node.run(work)


@pytest.mark.parametrize("namespace", ["../team", "a/b", ".", "TEAM", "a\0b"])
def test_a_namespace_is_never_a_path(node: Node, private: Registry, namespace: str) -> None:
    write(node.auth_dir.parent / "team.json", private.host)

    async def work(puller: Puller, library: Library) -> None:
        with pytest.raises((InvalidArgument, SignatureValidationFailed), match="no name of a Kubernetes"):
            await puller.pull(f"{private.host}/team/app:one", namespace=namespace)

    node.run(work)
