"""Images that skopeo and cosign have signed, tampered with in every way; skopeo judges them, too.

Debian 12's skopeo can do nothing with sigstore (Debian 13's can), and cosign is no package of Debian. Without
them their cases are skipped, which the summary says. Nothing here asks for a transparency log: both sign with
keys.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from pull_node import BASE, IMAGE, TOP, Node, check

from noded.errors import SignatureValidationFailed
from noded.images.library import Library
from noded.images.pull import Puller
from tests.support.images import build, sha256, write_layout
from tests.support.registry import Registry
from tests.support.sigstore_key import encrypted

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("docker-registry") is None, reason="needs docker-registry"),
    pytest.mark.skipif(shutil.which("skopeo") is None, reason="needs skopeo"),
]

OTHER = build([BASE, TOP], labels={"another": "image"})
PASSPHRASE = "secret"
ANNOTATION = "dev.cosignproject.cosign/signature"
KEYS: Mapping[str, Callable[[], Any]] = {
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "RSA": lambda: rsa.generate_private_key(65537, 2048),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
}


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        check=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
    )


@cache
def skopeo_knows_sigstore() -> bool:
    return b"generate-sigstore-key" in run("skopeo", "--help").stdout


@dataclass
class Party:
    """Somebody with a key, and a program that signs with it."""

    home: Path
    requirement: dict[str, object] = field(default_factory=dict)  # of the policy that trusts this party

    def sign(self, node: SignedNode, repository: str, tag: str) -> None:
        """Push IMAGE there, with a signature."""
        raise NotImplementedError


class Gpg(Party):
    """skopeo with an OpenPGP key; signatures are in a lookaside directory."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        home.mkdir(mode=0o700)
        self._gpg("--batch", "--passphrase", "", "--quick-generate-key", "signer <s@x.io>", "rsa2048")
        (home / "key.gpg").write_bytes(self._gpg("--export", "--armor"))
        lines = self._gpg("--list-keys", "--with-colons").decode().splitlines()
        self._fingerprint = next(line for line in lines if line.startswith("fpr")).split(":")[9]
        self.requirement = {"type": "signedBy", "keyType": "GPGKeys", "keyPath": str(home / "key.gpg")}

    def _gpg(self, *arguments: str) -> bytes:
        return run("gpg", "--homedir", self.home, "--quiet", *arguments).stdout

    def sign(self, node: SignedNode, repository: str, tag: str) -> None:
        node.copy(repository, tag, "--sign-by", self._fingerprint, GNUPGHOME=str(self.home))

    def close(self) -> None:
        subprocess.run(["gpgconf", "--homedir", self.home, "--kill", "all"], check=False, timeout=60)


class Sigstore(Party):
    """Somebody with a sigstore key."""

    def __init__(self, home: Path, kind: str = "P-256") -> None:
        super().__init__(home)
        home.mkdir()
        key = KEYS[kind]()
        der = key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self.key, public = home / "own.key", home / "own.pub"
        self.key.write_bytes(encrypted(der, PASSPHRASE.encode()))
        public.write_bytes(
            key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )
        (home / "passphrase").write_text(PASSPHRASE)
        self.requirement = {"type": "sigstoreSigned", "keyPath": str(public)}


class SkopeoSigstore(Sigstore):
    def sign(self, node: SignedNode, repository: str, tag: str) -> None:
        passphrase = str(self.home / "passphrase")
        options = ("--sign-by-sigstore-private-key", str(self.key), "--sign-passphrase-file", passphrase)
        node.copy(repository, tag, *options)


class Cosign(Sigstore):
    """cosign signs a repository and not a tag."""

    def __init__(self, home: Path, kind: str = "P-256") -> None:
        super().__init__(home, kind)
        self.requirement["signedIdentity"] = {"type": "matchRepository"}

    def sign(self, node: SignedNode, repository: str, tag: str) -> None:
        node.copy(repository, tag)
        options = ["--tlog-upload=false", "--yes", "--key", str(self.key)]
        target = f"{node.registry.host}/{repository}@{IMAGE.digest}"
        run("cosign", "sign", *options, target, COSIGN_PASSWORD=PASSPHRASE, HOME=str(self.home))


class SignedNode:
    """noded's pulls and skopeo, with one policy for both."""

    def __init__(self, directory: Path, registry: Registry) -> None:
        self.directory, self.registry = directory, registry
        self.policy, self.places = directory / "policy.json", directory / "registries.d"
        self.store = directory / "lookaside"
        self.places.mkdir()
        (self.places / "all.yaml").write_text(
            "default-docker:\n"
            f"  lookaside: file://{self.store}\n"
            f"  lookaside-staging: file://{self.store}\n"
            "  use-sigstore-attachments: true\n"
        )
        self.node = Node(directory / "node", policy=self.policy, registries_d=self.places)
        self.node.trust(registry)

    def require(self, *requirements: object) -> None:
        document = {
            "default": [{"type": "reject"}],
            "transports": {"docker": {self.registry.host: requirements}},
        }
        self.policy.write_text(json.dumps(document))

    def copy(self, repository: str, tag: str, *options: str, **environment: str) -> None:
        """Have skopeo push IMAGE."""
        layout = self.directory / "layout"
        if not layout.exists():
            write_layout(IMAGE, layout, "x")
        name = f"docker://{self.registry.host}/{repository}:{tag}"
        command = ("skopeo", "--insecure-policy", "--registries.d", self.places, "copy")
        run(*command, "--dest-tls-verify=false", *options, f"oci:{layout}:x", name, **environment)

    def get(self, path: str) -> bytes:
        request = urllib.request.Request(f"{self.registry.url}/v2/{path}")
        request.add_header("Accept", "application/vnd.oci.image.manifest.v1+json")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=30) as answer:
            return bytes(answer.read())

    def verdicts(self, repository: str, tag: str) -> tuple[str, str | None]:
        """Why noded and skopeo refuse an image, "" for one that they take; None when skopeo cannot tell."""
        name = f"{self.registry.host}/{repository}:{tag}"
        theirs: str | None = None
        if "signedBy" in self.policy.read_text() or skopeo_knows_sigstore():
            out = self.directory / "copied"
            shutil.rmtree(out, ignore_errors=True)
            command = ["skopeo", "--policy", self.policy, "--registries.d", self.places, "copy"]
            command += ["--src-tls-verify=false", f"docker://{name}", f"dir:{out}"]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
            theirs = done.stderr if done.returncode else ""
        ours = ""

        async def work(puller: Puller, library: Library) -> None:
            nonlocal ours
            try:
                image_id = await puller.pull(name)
            except SignatureValidationFailed as error:
                ours = str(error)
                assert ours.startswith(f"SignatureValidationFailed: {name} must not be used: ")
                assert library.list() == ()
            else:
                check(library, name, IMAGE if image_id == IMAGE.id else OTHER)
                await library.remove(name)

        self.node.run(work)
        assert self.node.is_empty()
        return ours, theirs


@pytest.fixture
def signed(tmp_path: Path, registry: Registry) -> SignedNode:
    return SignedNode(tmp_path, registry)


@pytest.fixture
def party(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[type[Party]]:
    """Makes signers; gpg-agent's socket wants a short path."""
    program = {Gpg: "gpg", Cosign: "cosign", SkopeoSigstore: "skopeo"}[request.param]
    if shutil.which(program) is None:
        pytest.skip(f"{program.upper()} IS NOT INSTALLED: nothing that it signs was verified")
    if request.param is SkopeoSigstore and not skopeo_knows_sigstore():
        pytest.skip("THIS SKOPEO CANNOT SIGN WITH SIGSTORE KEYS: nothing that it signs was verified")
    made: list[Party] = []

    def make(*arguments: str) -> Party:
        made.append(request.param(tmp_path_factory.mktemp("signer") / "home", *arguments))
        return made[-1]

    yield make
    for one in made:
        if isinstance(one, Gpg):
            one.close()


PARTIES = pytest.mark.parametrize("party", [Gpg, SkopeoSigstore, Cosign], indirect=True)


@PARTIES
def test_a_signed_image_is_accepted(signed: SignedNode, party: Callable[[], Party]) -> None:
    signer = party()
    signer.sign(signed, "signed/a", "one")
    signed.require(signer.requirement)
    ours, theirs = signed.verdicts("signed/a", "one")
    assert ours == ""
    assert not theirs


@pytest.mark.parametrize("party", [SkopeoSigstore, Cosign], indirect=True)
@pytest.mark.parametrize("kind", ["P-384", "RSA", "Ed25519"])
def test_keys_of_all_kinds_are_accepted_and_told_apart(
    signed: SignedNode, party: Callable[[str], Party], kind: str
) -> None:
    signer, stranger = party(kind), party(kind)
    signer.sign(signed, f"keys/{kind.lower()}", "one")
    signed.require(signer.requirement)
    ours, theirs = signed.verdicts(f"keys/{kind.lower()}", "one")
    assert ours == ""
    assert not theirs
    signed.require(stranger.requirement)
    ours, theirs = signed.verdicts(f"keys/{kind.lower()}", "one")
    assert "by another key, or not valid" in ours
    assert theirs != ""


TAMPERED = {
    "unsigned": "none ",
    "another key": "by another key, or not valid",
    "the signature of another image": "one for the manifest",
    "the signature of another name": "one for the name",
    "another signed text": "not valid",
    "a changed signature": "not valid",
    "one of two keys": "by another key, or not valid",
}


@PARTIES
@pytest.mark.parametrize("case", TAMPERED)
def test_a_tampered_image_is_refused(signed: SignedNode, party: Callable[[], Party], case: str) -> None:
    signer = party()
    repository = f"{type(signer).__name__.lower()}/{case.replace(' ', '-')}"
    signer.sign(signed, repository, "one")
    signed.require(signer.requirement)
    host = signed.registry.host
    match case:
        case "unsigned":
            signed.registry.push(OTHER, repository, "one")
        case "another key":
            signed.require(party().requirement)
        case "one of two keys":
            signed.require(signer.requirement, party().requirement)
        case "the signature of another image":
            signed.registry.push(OTHER, repository, "one")
            move_signature(signed, repository, OTHER.digest)
        case "the signature of another name":
            signed.registry.push(IMAGE, f"{repository}-copy", "one")
            move_signature(signed, repository, IMAGE.digest, to=f"{repository}-copy")
            repository += "-copy"
        case "another signed text":
            move_signature(signed, repository, IMAGE.digest, text=(host.encode(), b"example.com:1"))
        case "a changed signature":
            move_signature(signed, repository, IMAGE.digest, flip=True)
    ours, theirs = signed.verdicts(repository, "one")
    assert TAMPERED[case] in ours
    assert theirs != "", "skopeo accepts it"


def move_signature(
    node: SignedNode,
    repository: str,
    digest: str,
    *,
    to: str = "",
    text: tuple[bytes, bytes] = (b"", b""),
    flip: bool = False,
) -> None:
    """Attach the signature of IMAGE to something else, or change it."""
    lookaside = node.store / f"{repository}@{IMAGE.digest.replace(':', '=')}/signature-1"
    if lookaside.exists():
        data = bytearray(lookaside.read_bytes().replace(*text))
        if flip or text[0]:  # the text is compressed in the message: any change of it is one of bytes
            data[-20] ^= 1
        target = node.store / f"{to or repository}@{digest.replace(':', '=')}"
        target.mkdir(parents=True, exist_ok=True)
        (target / "signature-1").write_bytes(data)
        return
    manifest = json.loads(node.get(f"{repository}/manifests/{IMAGE.digest.replace(':', '-')}.sig"))
    for layer in manifest["layers"]:
        payload = node.get(f"{repository}/blobs/{layer['digest']}").replace(*text)
        layer.update(digest=sha256(payload), size=len(payload))
        node.registry.push_blob(to or repository, layer["digest"], payload)
        if flip:
            signature = bytearray(
                base64.b64decode(layer["annotations"]["dev.cosignproject.cosign/signature"])
            )
            signature[-1] ^= 1
            layer["annotations"]["dev.cosignproject.cosign/signature"] = base64.b64encode(signature).decode()
    config = node.get(f"{repository}/blobs/{manifest['config']['digest']}")
    node.registry.push_blob(to or repository, manifest["config"]["digest"], config)
    tag = f"{digest.replace(':', '-')}.sig"
    node.registry.push_manifest(to or repository, tag, json.dumps(manifest).encode(), manifest["mediaType"])
