"""A pull of an image that is here: one HEAD shows that the credential may read it, and nothing else is asked.

kubelet relies on the first half of it, and every start of a container with `imagePullPolicy: Always` pays
for the second.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fault_proxy import FaultProxy
from pull_node import IMAGE, Node

from noded.errors import PermissionDenied
from noded.images.export import export_store
from noded.images.library import Library
from noded.images.pull import Puller
from noded.images.stores import AdditionalStores
from noded.model.image import Credential
from tests.support.images import architecture, artifact, index
from tests.support.registry import PASSWORD, USER, Registry

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("docker-registry") is None, reason="needs docker-registry"),
]

GOOD, BAD = Credential(username=USER, password=PASSWORD), Credential(username=USER, password="no")
MODEL = artifact({"model.bin": b"weights" * 1000})


@pytest.mark.parametrize("home", ["local", "additional store"])
@pytest.mark.parametrize("kind", ["image", "index", "artifact"])
def test_it_costs_one_head_and_needs_a_good_credential(tmp_path: Path, home: str, kind: str) -> None:
    node = Node(tmp_path)
    with Registry(tmp_path / "private", private=True) as private, FaultProxy(private.host) as proxy:
        what = MODEL if kind == "artifact" else IMAGE
        private.push(what, "team/app", "one")
        digest, tag = what.digest, "one"
        if kind == "index":
            both = index([(IMAGE, "linux", architecture())])
            private.push_manifest("team/app", "both", both, "application/vnd.oci.image.index.v1+json")
            tag = "both"
        node.trust(proxy.host)
        by_tag, by_digest = f"{proxy.host}/team/app:{tag}", f"{proxy.host}/team/app@{digest}"

        def asked() -> list[str]:
            lines = [line for line, _ in proxy.requests]
            proxy.requests.clear()
            return lines

        async def work(puller: Puller, library: Library) -> None:
            image_id = await puller.pull(by_tag, GOOD)
            if home == "additional store":
                await export_store(library.own(), tmp_path / "shared", library)
                await library.remove(image_id)
                stores = AdditionalStores([tmp_path / "shared"])
                library.set_stores(stores)
                await stores.refresh()
                assert not library.own()
            asked()
            for name, target in ((by_tag, tag), (by_digest, digest)):
                head = f"HEAD /v2/team/app/manifests/{target}"
                assert await puller.pull(name, GOOD) == image_id
                assert asked() == [head]
                with pytest.raises(PermissionDenied, match=f"cannot pull {name}: .*refused the login"):
                    await puller.pull(name, BAD)
                assert asked() == [head] * 2, "the second one with the login"
                with pytest.raises(PermissionDenied, match=f"cannot pull {name}: .*wants a login"):
                    await puller.pull(name)
                assert asked() == [head]
                assert await puller.pull(name, GOOD) == image_id
                assert asked() == [head]
            assert bool(library.own()) == (home == "local"), "nothing was copied"

        node.run(work)


def test_a_tag_that_has_moved_is_pulled(tmp_path: Path) -> None:
    node = Node(tmp_path)
    with Registry(tmp_path / "registry") as registry, FaultProxy(registry.host) as proxy:
        registry.push(IMAGE, "team/app", "one")
        registry.push(MODEL, "team/app", "next")
        node.trust(proxy.host)
        name = f"{proxy.host}/team/app:one"

        async def work(puller: Puller, library: Library) -> None:
            assert await puller.pull(name) == IMAGE.id
            registry.push_manifest("team/app", "one", MODEL.manifest, MODEL.media_type)
            assert await puller.pull(name) == MODEL.digest
            first, second = library.get(IMAGE.id), library.get(name)
            assert first is not None
            assert second is not None
            assert (first.tags, second.tags) == ((), (name,))

        node.run(work)
