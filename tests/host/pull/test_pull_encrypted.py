"""Images that skopeo, and the test's own code after the specification, have encrypted."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from pull_node import IMAGE, Node, check_tree

from noded.errors import DataLoss, FailedPrecondition, InvalidArgument, NodedError
from noded.images.archive import load_archive, save_archive
from noded.images.library import Library
from noded.images.pull import Puller
from noded.images.repair import Repairer
from tests.support.encryption import PrivateKey, encrypt
from tests.support.images import write_layout
from tests.support.registry import Registry

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("docker-registry") is None, reason="needs docker-registry"),
]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture(scope="module")
def private_keys() -> dict[str, PrivateKey]:
    return {
        "rsa": rsa.generate_private_key(65537, 2048),
        "p256": ec.generate_private_key(ec.SECP256R1()),
        "p521": ec.generate_private_key(ec.SECP521R1()),
        "stranger": rsa.generate_private_key(65537, 2048),
    }


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """The directory with the node's keys, where there is also what is none."""
    directory = tmp_path / "keys"
    directory.mkdir()
    (directory / "README").write_text("keys of this node")
    (directory / "empty.pem").touch()
    (directory / "directory").mkdir()
    return directory


@pytest.fixture
def node(tmp_path: Path, registry: Registry, keys: Path) -> Node:
    made = Node(tmp_path, keys=keys)
    made.trust(registry)
    return made


def put_key(directory: Path, name: str, key: PrivateKey, form: str = "PEM PKCS8") -> Path:
    encoding, _, structure = form.partition(" ")
    path = directory / name
    path.write_bytes(
        key.private_bytes(
            getattr(serialization.Encoding, encoding),
            getattr(serialization.PrivateFormat, structure),
            serialization.NoEncryption(),
        )
    )
    return path


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="needs skopeo")
@pytest.mark.parametrize(
    ("kind", "form"),
    [
        ("rsa", "PEM PKCS8"),
        ("rsa", "DER TraditionalOpenSSL"),
        ("p256", "PEM TraditionalOpenSSL"),
        ("p521", "DER PKCS8"),
    ],
)
def test_what_skopeo_encrypts_is_pulled(
    tmp_path: Path,
    node: Node,
    registry: Registry,
    keys: Path,
    private_keys: Mapping[str, PrivateKey],
    kind: str,
    form: str,
) -> None:
    name = skopeo_push(tmp_path, registry, [private_keys[kind]], f"skopeo/{kind}")
    put_key(keys, "a-stranger.pem", private_keys["stranger"])
    put_key(keys, "node.key", private_keys[kind], form)

    async def work(puller: Puller, library: Library) -> None:
        assert await puller.pull(name) == IMAGE.id
        check_tree(library, name)
        kept = library.get(name)
        assert kept is not None
        assert all(layer.media_type.endswith("+encrypted") for layer in kept.layers)

    node.run(work)


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="needs skopeo")
def test_one_of_many_recipients_is_enough_and_skopeo_opens_what_noded_saves(
    tmp_path: Path, node: Node, registry: Registry, keys: Path, private_keys: Mapping[str, PrivateKey]
) -> None:
    name = skopeo_push(tmp_path, registry, [private_keys["rsa"], private_keys["p256"]], "skopeo/both")
    own = put_key(keys, "p256.pem", private_keys["p256"])
    saved = tmp_path / "saved.tar"

    async def work(puller: Puller, library: Library) -> None:
        assert await puller.pull(name) == IMAGE.id
        kept = library.get(name)
        assert kept is not None
        await save_archive([kept], saved, "oci", library)
        await library.remove(name)

    node.run(work)
    assert node.is_empty()
    skopeo("copy", "--decryption-key", str(own), f"oci-archive:{saved}", f"dir:{tmp_path}/open")
    plain = json.loads((tmp_path / "open/manifest.json").read_text())
    assert [layer["digest"] for layer in plain["layers"]] == list(IMAGE.layer_digests)

    async def load(puller: Puller, library: Library) -> None:
        (loaded,) = await load_archive(saved, library)
        assert loaded.id == IMAGE.id
        check_tree(library, loaded.id)
        # What was found damaged is made anew from the encrypted blob.
        (library.layers.tree(loaded.chain_ids[1]) / "bin/tool").unlink()
        (verdict,) = await Repairer(library).verify([loaded], deep=True)
        assert (verdict.usable, verdict.repaired) == (True, True)
        check_tree(library, loaded.id)

    node.run(load)


def test_an_image_encrypted_after_the_specification_is_pulled(
    node: Node, registry: Registry, keys: Path, private_keys: Mapping[str, PrivateKey]
) -> None:
    image = encrypt(IMAGE, [[private_keys["stranger"]], [private_keys["rsa"], private_keys["p521"]]])
    name = registry.push(image, "own/image", "v1")
    put_key(keys, "p521.pem", private_keys["p521"])

    async def work(puller: Puller, library: Library) -> None:
        assert await puller.pull(name) == IMAGE.id
        check_tree(library, name)
        # The key is for pulls: containers need it no more.
        (keys / "p521.pem").unlink()
        assert await puller.pull(name) == IMAGE.id

    node.run(work)


def test_plain_and_encrypted_layers_share_an_image_and_its_trees(
    node: Node, registry: Registry, keys: Path, private_keys: Mapping[str, PrivateKey]
) -> None:
    plain = registry.push(IMAGE, "mixed/plain", "v1")
    mixed = registry.push(encrypt(IMAGE, [[private_keys["rsa"]]], only=1), "mixed/top", "v1")

    async def work(puller: Puller, library: Library) -> None:
        with pytest.raises(FailedPrecondition):
            await puller.pull(mixed)
        assert await puller.pull(plain) == IMAGE.id
        assert await puller.pull(mixed) == IMAGE.id  # its trees are here

    node.run(work)


def test_without_a_key_nothing_is_downloaded(
    node: Node, registry: Registry, keys: Path, private_keys: Mapping[str, PrivateKey]
) -> None:
    image = encrypt(IMAGE, [[private_keys["rsa"]]])
    name = registry.push(image, "own/locked", "v1")
    for digest in image.layer_digests:
        registry.blob_path(digest).unlink()  # to ask for one would be another error
    put_key(keys, "stranger.pem", private_keys["stranger"])

    async def work(puller: Puller, library: Library) -> None:
        with pytest.raises(
            FailedPrecondition,
            match=rf"cannot pull {name}: layer sha256:\w+ is encrypted, and none of the 1 keys in {keys}",
        ):
            await puller.pull(name)

    node.run(work)
    assert node.is_empty()


@pytest.mark.parametrize(
    ("annotations", "kind", "words"),
    [
        ({"org.opencontainers.image.enc.keys.jwe": "", "org.opencontainers.image.enc.keys.pgp": "eA=="},
         FailedPrecondition, "not for a JWE key"),
        ({"org.opencontainers.image.enc.keys.jwe": "no base64!"}, InvalidArgument, "is not base64"),
        ({"org.opencontainers.image.enc.keys.jwe": "e30x"}, InvalidArgument, "JWE is not JSON"),
        ({"org.opencontainers.image.enc.pubopts": "e30="}, InvalidArgument, "encrypted by ''"),
        ({"org.opencontainers.image.enc.pubopts":
          base64.b64encode(b'{"cipher":"AES_256_CTR_HMAC_SHA256","cipheroptions":{"hmac":"eA=="}}').decode()},
         InvalidArgument, "hmac has 1 bytes, not 32"),
    ],
)  # fmt: skip
def test_annotations_that_make_no_sense_are_told(
    node: Node,
    registry: Registry,
    keys: Path,
    private_keys: Mapping[str, PrivateKey],
    annotations: Mapping[str, str],
    kind: type[NodedError],
    words: str,
) -> None:
    image = encrypt(IMAGE, [[private_keys["rsa"]]], annotations=annotations)
    name = registry.push(image, "own/odd", "v1")
    put_key(keys, "rsa.pem", private_keys["rsa"])

    async def work(puller: Puller, library: Library) -> None:
        with pytest.raises(kind, match=f"cannot pull {name}: .*{words}"):
            await puller.pull(name)

    node.run(work)
    assert node.is_empty()


def test_a_layer_that_was_changed_by_who_knows_no_key_is_refused(
    node: Node, registry: Registry, keys: Path, private_keys: Mapping[str, PrivateKey]
) -> None:
    """Digest and size are right: only the authentication code tells."""
    image = encrypt(IMAGE, [[private_keys["rsa"]]], flip=100)
    name = registry.push(image, "own/changed", "v1")
    put_key(keys, "rsa.pem", private_keys["rsa"])

    async def work(puller: Puller, library: Library) -> None:
        with pytest.raises(DataLoss, match=f"cannot pull {name}: .*authentication code is wrong"):
            await puller.pull(name)

    node.run(work)
    assert node.is_empty()


# encryption


def skopeo(*arguments: str) -> None:
    subprocess.run(["skopeo", "--insecure-policy", *arguments], check=True, capture_output=True)


def skopeo_push(directory: Path, registry: Registry, keys: Sequence[PrivateKey], repository: str) -> str:
    layout = write_layout(IMAGE, directory / "layout", "plain")
    options: list[str] = []
    for number, key in enumerate(keys):
        public = directory / f"public-{number}.pem"
        public.write_bytes(
            key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )
        options += ["--encryption-key", f"jwe:{public}"]
    name = f"{registry.host}/{repository}:1"
    skopeo("copy", *options, "--dest-tls-verify=false", f"oci:{layout}:plain", f"docker://{name}")
    return name
