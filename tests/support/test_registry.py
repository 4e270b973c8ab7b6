from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from tests.support.images import Entry, build, busybox_image, tar, write_layout
from tests.support.registry import PASSWORD, USER, Registry

pytestmark = pytest.mark.skipif(
    None in (shutil.which("docker-registry"), shutil.which("skopeo")),
    reason="docker-registry and skopeo are not installed: run `make packages` as root",
)


def inspect(reference: str, *options: str) -> dict[str, object]:
    command = ["skopeo", "inspect", *options, reference]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)


@pytest.mark.parametrize(
    ("compression", "docker"), [("gzip", False), ("zstd", False), ("none", False), ("gzip", True)]
)
def test_an_independent_client_finds_what_was_pushed(registry, compression, docker):
    image = build(
        [tar([Entry("file", b"content")])], compression=compression, docker=docker, labels={"a": "b"}
    )
    reference = registry.push(image, f"support/{compression}-{docker}".lower(), "1", "latest")
    seen = inspect(f"docker://{reference}", "--tls-verify=false")
    assert seen["Digest"] == image.digest
    assert seen["Layers"] == list(image.layer_digests)
    assert seen["Labels"] == {"a": "b"}
    assert registry.blob_path(image.id).read_bytes() == image.config


def test_a_private_registry_asks_for_credentials(tmp_path):
    image = build([tar([Entry("file", b"content")])])
    with Registry(tmp_path, private=True) as private:
        reference = f"docker://{private.push(image, 'support/private', '1')}"
        with pytest.raises(subprocess.CalledProcessError) as caught:
            inspect(reference, "--tls-verify=false")
        assert b"authentication required" in caught.value.stderr
        seen = inspect(reference, "--tls-verify=false", f"--creds={USER}:{PASSWORD}")
        assert seen["Digest"] == image.digest


def test_an_independent_client_reads_the_layout(tmp_path):
    image = busybox_image()
    write_layout(image, tmp_path, "registry.example/busybox:1.0")
    assert inspect(f"oci:{tmp_path}:registry.example/busybox:1.0")["Digest"] == image.digest


def test_the_same_image_has_the_same_digest_each_time():
    layer = tar([Entry("dir/", mode=0o755), Entry("dir/file", b"x"), Entry("link", link="dir/file")])
    assert build([layer]).digest == build([layer]).digest
