"""`noded images inspect|verify|df|pull` against a real daemon."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from collections.abc import Iterator

import pytest
from test_command_line import REPOSITORY, command, noded, rows

from tests.support.images import Entry, artifact, build, busybox_image, tar, write_layout
from tests.support.slow_registry import SlowRegistry

pytestmark = pytest.mark.root


@pytest.fixture
def loaded(daemon, tmp_path) -> str:
    write_layout(busybox_image(), tmp_path / "layout", "support.invalid/busybox:1.0")
    noded(daemon, "images", "load", str(tmp_path / "layout"))
    return busybox_image().id


def test_an_image_is_inspected(daemon, loaded):
    shown = json.loads(noded(daemon, "images", "inspect", "support.invalid/busybox:1.0"))
    assert shown["id"] == loaded
    assert shown["tags"] == ["support.invalid/busybox:1.0"]
    assert shown["config"]["cmd"] == ["/bin/sh"]
    assert len(shown["layers"]) == 1
    assert "not on this node" in noded(daemon, "images", "inspect", "nothing:1", status=1)


def test_disk_use_is_shown(daemon, loaded):
    text = noded(daemon, "images", "df")
    (row,) = rows(text.partition("\n\n")[0])
    assert row["IMAGE"] == "support.invalid/busybox:1.0"
    assert row["ON DISK"] == row["UNIQUE"]
    assert "writable layers" in text
    report = json.loads(noded(daemon, "images", "df", "--json"))
    assert report["images"][0]["used_bytes"] == report["images"][0]["unique_bytes"] > 0
    assert report["images_bytes"] >= report["images"][0]["used_bytes"]


def test_damage_is_found_and_repaired(daemon, loaded):
    assert noded(daemon, "images", "verify", "--deep").startswith("good ")
    (busybox,) = (daemon.root / "layers").glob("*/fs/bin/busybox")
    busybox.chmod(0o700)
    answer = noded(daemon, "images", "verify", "--deep", loaded)
    assert answer.startswith("repaired ")
    assert "bin/busybox: mode" in answer
    (report,) = json.loads(noded(daemon, "images", "verify", "--deep", "--json"))
    assert (report["usable"], report["problems"]) == (True, [])


def test_an_artifact_is_loaded_and_saved(daemon, tmp_path):
    model = artifact({"model.bin": b"weights"})
    write_layout(model, tmp_path / "layout", "support.invalid/model:1")
    noded(daemon, "images", "load", str(tmp_path / "layout"))
    shown = json.loads(noded(daemon, "images", "inspect", "support.invalid/model:1"))
    assert (shown["id"], shown["artifactType"]) == (model.digest, "application/vnd.example.model")
    archive = tmp_path / "model.tar"
    noded(daemon, "images", "save", "-o", str(archive), model.digest)
    refusal = noded(
        daemon, "images", "save", "--format", "docker", "-o", str(archive), model.digest, status=1
    )
    assert "save it as oci" in refusal
    noded(daemon, "images", "rm", model.digest)
    noded(daemon, "images", "load", str(archive))
    assert noded(daemon, "images", "verify", "--deep").startswith("good ")


@pytest.fixture
def slow() -> Iterator[SlowRegistry]:
    with SlowRegistry(build([tar([Entry("big", os.urandom(600_000))])])) as registry:
        yield registry


def test_a_pull_shows_its_progress_on_a_terminal(daemon, slow):
    host = slow.host
    (daemon.directory / "registries.conf").write_text(f'[[registry]]\nlocation = "{host}"\ninsecure = true\n')
    ours, theirs = pty.openpty()
    pull = subprocess.Popen(
        command(daemon, "images", "pull", f"{host}/slow:1"),
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )
    os.close(theirs)
    layer = slow.image.layer_digests[0].removeprefix("sha256:")[:13].encode()
    seen = b""
    try:
        while chunk := os.read(ours, 65536):
            seen += chunk
            if layer in seen and b"streaming" in seen:
                slow.go_on.set()
    except OSError:  # EIO: the other end is closed
        pass
    finally:
        os.close(ours)
    assert pull.stdout is not None
    assert pull.stdout.read().strip() == slow.image.id
    assert pull.wait(30) == 0
    assert slow.go_on.is_set(), seen
