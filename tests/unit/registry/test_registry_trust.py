"""Pulls under a policy: good signatures are accepted, everything else is refused before a layer comes."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pull_world import IMAGE, World
from registry_fakes import FakeRegistry, status

from noded.errors import NodedError, RegistryUnavailable, SignatureValidationFailed
from noded.images.trust.admission import Admission
from noded.model.image import Image
from tests.support import images as build

PREFIX = "SignatureValidationFailed: "
needs_gpg = pytest.mark.skipif(not (shutil.which("gpg") and shutil.which("gpgv")), reason="needs gpg, gpgv")


class Node:
    """A world with a policy."""

    def __init__(self, directory: Path, registry: FakeRegistry) -> None:
        self.policy = directory / "policy.json"
        self.namespaces = directory / "policies"
        self.places = directory / "registries.d"
        self.store = directory / "sigstore"
        for path in (self.namespaces, self.places, self.store):
            path.mkdir()
        self.world = World(
            directory,
            signature_policy=self.policy,
            signature_policy_dir=self.namespaces,
            signature_registries_dir=self.places,
        )
        self.world.trust(registry)
        self.registry = registry
        self.name = f"{registry.host}/a/b:t"
        self.admission: Admission = self.world.puller.admission(directory / "verdicts")

    def require(self, *requirements: object, path: Path | None = None) -> None:
        document = {
            "default": [{"type": "reject"}],
            "transports": {"docker": {self.registry.host: requirements}},
        }
        (path or self.policy).write_text(json.dumps(document))

    def say(self, **settings: object) -> None:
        (self.places / "here.yaml").write_text(
            "docker:\n"
            f"  {self.registry.host}:\n"
            + "".join(
                f"    {key.replace('_', '-')}: {json.dumps(value)}\n" for key, value in settings.items()
            )
        )

    def refused(self, words: str = "") -> None:
        error = self.world.fails(self.name)
        assert isinstance(error, SignatureValidationFailed)
        assert str(error).startswith(f"{PREFIX}{self.name} must not be used: ")
        assert words in str(error)
        assert not [digest for digest in IMAGE.layer_digests if self.world.content.has(digest)]

    def accepted(self) -> None:
        assert self.world.pull(self.name) == IMAGE.id


@pytest.fixture
def node(tmp_path: Path, registry: FakeRegistry) -> Node:
    return Node(tmp_path, registry)


def claim(name: str, digest: str = IMAGE.digest, kind: str = "atomic container signature") -> bytes:
    critical = {
        "type": kind,
        "image": {"docker-manifest-digest": digest},
        "identity": {"docker-reference": name},
    }
    return json.dumps({"critical": critical, "optional": None}).encode()


# The policy itself


def test_a_registry_that_is_rejected_is_not_even_asked(node: Node) -> None:
    node.require({"type": "reject"})
    node.refused(f"rejects {node.registry.host}")
    assert node.registry.requests == []


def test_anything_is_accepted_where_the_policy_says_so(node: Node) -> None:
    node.require({"type": "insecureAcceptAnything"})
    node.accepted()


@pytest.mark.parametrize(
    ("requirement", "words"),
    [
        ({"type": "unheardOf"}, "requirements of type 'unheardOf'"),
        ({"type": "sigstoreSigned", "fulcio": {}}, "fulcio"),
        ({"type": "sigstoreSigned", "keyPath": "/nonexistent"}, "/nonexistent"),
    ],
)
def test_what_cannot_be_checked_is_refused(node: Node, requirement: object, words: str) -> None:
    node.require({"type": "insecureAcceptAnything"}, requirement)
    node.say(use_sigstore_attachments=True)
    node.refused(words)


def test_a_policy_that_is_missing_or_not_valid_refuses_everything(node: Node) -> None:
    node.refused("does not exist")
    node.policy.write_text("{")
    node.refused("is not valid: is not JSON")


def test_a_namespace_may_have_a_policy_of_its_own(node: Node) -> None:
    node.require({"type": "insecureAcceptAnything"})
    node.require({"type": "reject"}, path=node.namespaces / "strict.json")
    node.accepted()

    async def pull(namespace: str) -> str:
        async with node.world.running() as puller:
            return await puller.pull(node.name, None, namespace)

    import trio

    assert trio.run(pull, "other") == IMAGE.id
    # Although the image is here already.
    with pytest.raises(ExceptionGroup) as caught:
        trio.run(pull, "strict")
    assert caught.group_contains(SignatureValidationFailed, match="strict.json rejects")
    with pytest.raises(ExceptionGroup) as caught:
        trio.run(pull, "../policy")
    assert caught.group_contains(SignatureValidationFailed, match="no name of a Kubernetes namespace")


# sigstore


class Signer:
    def __init__(self, directory: Path) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.path = directory / f"cosign-{id(self)}.pub"
        public = self.key.public_key()
        self.path.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))

    def attach(
        self, registry: FakeRegistry, payload: bytes, digest: str = IMAGE.digest, repository: str = "a/b"
    ) -> None:
        signature = base64.b64encode(self.key.sign(payload, ec.ECDSA(SHA256()))).decode()
        attach(registry, payload, signature, digest, repository)


def attach(
    registry: FakeRegistry, payload: bytes, signature: str, digest: str, repository: str = "a/b"
) -> None:
    layer = {
        "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
        "digest": build.sha256(payload),
        "size": len(payload),
        "annotations": {"dev.cosignproject.cosign/signature": signature},
    }
    config = {"mediaType": build.OCI_CONFIG, "digest": build.sha256(b"{}"), "size": 2}
    manifest = {"schemaVersion": 2, "mediaType": build.OCI_MANIFEST, "config": config, "layers": [layer]}
    made = build.Image(
        json.dumps(manifest).encode(), build.OCI_MANIFEST, b"{}", {build.sha256(payload): payload}
    )
    registry.push(made, repository, f"{digest.replace(':', '-')}.sig")


@pytest.fixture
def signer(node: Node, tmp_path: Path) -> Signer:
    made = Signer(tmp_path)
    node.require({"type": "sigstoreSigned", "keyPath": str(made.path)})
    node.say(use_sigstore_attachments=True)
    return made


def test_an_image_signed_by_cosign_is_accepted(node: Node, signer: Signer) -> None:
    signer.attach(node.registry, claim(node.name))
    node.accepted()
    node.registry.requests.clear()
    node.accepted()  # checked again, since it costs little
    assert node.registry.count("manifests/sha256-") == 1
    assert node.registry.count("blobs") == 1


def test_a_signature_of_the_index_covers_the_image(node: Node, signer: Signer) -> None:
    index = build.index([(IMAGE, "linux", "amd64")])
    digest = node.registry.push_index(index, "a/b", "t")
    signer.attach(node.registry, claim(node.name, digest), digest)
    node.accepted()


@pytest.mark.parametrize(
    ("identity", "signed", "good"),
    [
        ({"type": "matchRepository"}, "{host}/a/b", True),
        ({"type": "matchRepository"}, "{host}/a/c", False),
        ({"type": "exactReference", "dockerReference": "x.io/y:z"}, "x.io/y:z", True),
        ({"type": "matchExact"}, "{host}/a/b:other", False),
        ({"type": "matchExact"}, "", False),
    ],
)
def test_the_signed_name_must_be_the_one_that_the_policy_wants(
    node: Node, signer: Signer, identity: dict[str, str], signed: str, good: bool
) -> None:
    node.require({"type": "sigstoreSigned", "keyPath": str(signer.path), "signedIdentity": identity})
    payload = claim(signed.format(host=node.registry.host), kind="cosign container image signature")
    signer.attach(node.registry, payload)
    if good:
        node.accepted()
    else:
        node.refused("one for the name")


def test_an_unsigned_image_is_refused(node: Node, signer: Signer) -> None:
    node.refused("none attached to it in the registry")


def test_a_signature_by_another_key_is_refused(node: Node, signer: Signer, tmp_path: Path) -> None:
    Signer(tmp_path).attach(node.registry, claim(node.name))
    node.refused("one by another key, or not valid")


def test_a_changed_text_under_a_good_signature_is_refused(node: Node, signer: Signer) -> None:
    other = signer.key.sign(claim(node.name, "sha256:" + "1" * 64), ec.ECDSA(SHA256()))
    attach(node.registry, claim(node.name), base64.b64encode(other).decode(), IMAGE.digest)
    node.refused("one by another key, or not valid")


def test_a_good_signature_of_another_image_is_refused(node: Node, signer: Signer) -> None:
    signer.attach(node.registry, claim(node.name, "sha256:" + "1" * 64))
    node.refused("one for the manifest sha256:111")


def test_one_good_signature_among_bad_ones_is_enough(node: Node, signer: Signer, tmp_path: Path) -> None:
    node.require({"type": "sigstoreSigned", "keyPaths": [str(Signer(tmp_path).path), str(signer.path)]})
    signer.attach(node.registry, claim(node.name))
    node.accepted()


def test_all_requirements_must_be_met(node: Node, signer: Signer, tmp_path: Path) -> None:
    second = Signer(tmp_path)
    node.require(*({"type": "sigstoreSigned", "keyPath": str(one.path)} for one in (signer, second)))
    signer.attach(node.registry, claim(node.name))
    node.refused("by another key")


def test_attachments_are_not_asked_for_unless_registries_d_says_so(node: Node, signer: Signer) -> None:
    signer.attach(node.registry, claim(node.name))
    (node.places / "here.yaml").unlink()
    node.refused("use-sigstore-attachments is not set")
    (node.places / "here.yaml").write_text("docker: [")
    node.refused("here.yaml: line 1")


def test_a_registry_that_fails_at_the_signature_may_be_asked_again(node: Node, signer: Signer) -> None:
    signer.attach(node.registry, claim(node.name))
    node.registry.on("manifests/sha256-", status(503), times=9)
    error: NodedError = node.world.fails(node.name)
    assert isinstance(error, RegistryUnavailable)


def test_a_key_file_that_is_none_is_named(node: Node, signer: Signer) -> None:
    signer.attach(node.registry, claim(node.name))
    signer.path.write_text("no key")
    node.refused("no PEM public key")


# Simple signing


class Gpg:
    """A person with an OpenPGP key."""

    def __init__(self, directory: Path, name: str) -> None:
        self.home = directory / name
        self.home.mkdir(mode=0o700)
        self.name = name
        self.run("--batch", "--passphrase", "", "--quick-generate-key", f"{name} <{name}@x.io>", "ed25519")
        self.key = directory / f"{name}.gpg"
        self.key.write_bytes(self.run("--export", "--armor"))

    def run(self, *arguments: str, data: bytes = b"") -> bytes:
        command = ["gpg", "--homedir", str(self.home), "--quiet", *arguments]
        return subprocess.run(command, input=data, capture_output=True, check=True, timeout=60).stdout

    def sign(self, payload: bytes) -> bytes:
        return self.run("--sign", data=payload)

    def close(self) -> None:
        subprocess.run(["gpgconf", "--homedir", str(self.home), "--kill", "all"], check=False, timeout=60)


@pytest.fixture
def alice(node: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gpg]:
    person = Gpg(tmp_path_factory.mktemp("gpg"), "alice")  # gpg-agent's socket wants a short path
    node.require({"type": "signedBy", "keyType": "GPGKeys", "keyPath": str(person.key)})
    node.say(lookaside=f"file://{node.store}")
    yield person
    person.close()


def put(node: Node, *signatures: bytes, digest: str = IMAGE.digest) -> None:
    directory = node.store / f"a/b@{digest.replace(':', '=')}"
    directory.mkdir(parents=True)
    for number, signature in enumerate(signatures, start=1):
        (directory / f"signature-{number}").write_bytes(signature)


@needs_gpg
def test_a_simple_signature_is_accepted(node: Node, alice: Gpg) -> None:
    put(node, b"nonsense", alice.sign(claim(node.name)))
    node.accepted()


@needs_gpg
def test_keys_may_be_binary_and_in_the_policy(node: Node, alice: Gpg) -> None:
    key = base64.b64encode(alice.run("--export")).decode()
    node.require({"type": "signedBy", "keyType": "GPGKeys", "keyData": key})
    put(node, alice.sign(claim(node.name)))
    node.accepted()


@needs_gpg
def test_simple_signatures_are_fetched_over_http(node: Node, alice: Gpg) -> None:
    path = f"/sigs/a/b@{IMAGE.digest.replace(':', '=')}/signature-1"
    signature = alice.sign(claim(node.name))

    def serve(handler: object) -> bool:
        handler.reply(200, signature)
        return True

    node.registry.on(f"GET {path}$", serve)
    node.say(lookaside=f"http://{node.registry.host}/sigs")
    node.accepted()


@needs_gpg
@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("none", "none in file://"),
        ("stranger", "another key, or not valid"),
        ("tampered", "another key, or not valid"),
        ("detached", "another key, or not valid"),
        ("stranger first", ""),
        ("stranger last", ""),
        ("expired", "another key, or not valid"),
        ("other image", "one for the manifest"),
        ("other name", "one for the name"),
        ("not a claim", "not JSON"),
    ],
)
def test_everything_but_a_good_simple_signature_is_refused(
    node: Node, alice: Gpg, tmp_path_factory: pytest.TempPathFactory, case: str, words: str
) -> None:
    payload = claim(node.name)
    good = alice.sign(payload)
    match case:
        case "none":
            pass
        case "stranger" | "stranger first" | "stranger last":
            mallory = Gpg(tmp_path_factory.mktemp("gpg"), "mallory")
            bad, genuine = mallory.sign(payload), alice.sign(claim("x.io/a:t"))
            mallory.close()
            put(
                node, {"stranger": bad, "stranger first": bad + genuine, "stranger last": genuine + bad}[case]
            )
        case "tampered":
            put(node, good[:-20] + bytes([good[-20] ^ 1]) + good[-19:])
        case "detached":
            put(node, alice.run("--detach-sign", data=payload))
        case "expired":
            past = (
                "--faked-system-time",
                "20200101T000000!",
                "--ignore-time-conflict",
                "--ignore-valid-from",
            )
            put(node, alice.run(*past, "--default-sig-expire", "1d", "--sign", data=payload))
        case "other image":
            put(node, alice.sign(claim(node.name, "sha256:" + "1" * 64)))
        case "other name":
            put(node, alice.sign(claim("x.io/a:t")))
        case "not a claim":
            put(node, alice.sign(b"hello"))
    node.refused(words)


@needs_gpg
@pytest.mark.skipif(shutil.which("skopeo") is None, reason="needs skopeo")
def test_what_skopeo_signs_is_accepted(node: Node, alice: Gpg, tmp_path: Path) -> None:
    manifest, signature = tmp_path / "manifest.json", tmp_path / "signature"
    manifest.write_bytes(IMAGE.manifest)
    (line,) = [text for text in alice.run("--list-keys", "--with-colons").splitlines() if text[:3] == b"fpr"][
        :1
    ]
    fingerprint = line.split(b":")[9].decode()
    subprocess.run(
        ["skopeo", "standalone-sign", manifest, node.name, fingerprint, "--output", signature],
        env={"PATH": "/usr/bin:/bin", "GNUPGHOME": str(alice.home)},
        check=True,
        capture_output=True,
        timeout=60,
    )
    put(node, signature.read_bytes())
    node.accepted()


# Images that are here already


def admit(
    node: Node, asked_as: str = "", namespace: str = "", image: Image | None = None, *, again: bool = False
) -> str:
    """The refusal of the image that `node` has pulled, "" if it may be used."""
    if again:
        node.admission = node.world.puller.admission(node.world.directory / "verdicts")
    found = image or node.world.library.images[IMAGE.id]

    async def main() -> str:
        try:
            await node.admission.admit(found, asked_as, namespace)
        except SignatureValidationFailed as error:
            return str(error)
        return ""

    return trio.run(main)


def test_a_policy_that_changes_counts_at_the_next_use(node: Node) -> None:
    node.require({"type": "insecureAcceptAnything"})
    node.accepted()
    assert admit(node, node.name) == ""
    node.require({"type": "reject"})
    assert f"rejects {node.registry.host}" in admit(node, node.name)
    assert f"rejects {node.registry.host}" in admit(node, IMAGE.id)
    node.require({"type": "insecureAcceptAnything"}, path=node.namespaces / "trusted.json")
    assert admit(node, node.name, "trusted") == ""
    node.policy.write_text("{")
    assert "not valid" in admit(node, node.name)


def test_a_signature_that_a_pull_has_checked_needs_no_registry_at_the_use(node: Node, signer: Signer) -> None:
    signer.attach(node.registry, claim(node.name))
    node.accepted()
    node.registry.requests.clear()
    assert admit(node, node.name) == ""
    assert admit(node, IMAGE.id, again=True) == "", "after a restart, too"
    assert node.registry.requests == []


def test_another_key_in_the_same_file_makes_a_verdict_void(
    node: Node, signer: Signer, tmp_path: Path
) -> None:
    signer.attach(node.registry, claim(node.name))
    node.accepted()
    assert admit(node, node.name) == ""
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    path = Path(json.loads(node.policy.read_text())["transports"]["docker"][node.registry.host][0]["keyPath"])
    path.write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    assert "by another key" in admit(node, node.name)


def test_an_image_without_a_name_is_under_the_policys_default(node: Node) -> None:
    node.require({"type": "insecureAcceptAnything"})
    node.accepted()
    nameless = replace(node.world.library.images[IMAGE.id], tags=(), digests=())
    assert "rejects images" in admit(node, image=nameless)
    assert "rejects images" in admit(node, node.name, image=nameless), "a name that it does not have"
