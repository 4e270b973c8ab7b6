"""Directories of parsed files: changes are seen, bad files are named."""

from __future__ import annotations

import json
import os

import pytest

from noded.errors import FailedPrecondition
from noded.host import parsed_files
from noded.host.parsed_files import ParsedFiles
from noded.spec.cdi.catalogue import Catalogue, CdiFile
from noded.spec.cdi.document import parse_document

NAME = "vendor.com/gpu=0"


class CdiDirectories:
    """Files and catalogue as the engine puts them together."""

    def __init__(self, directories):
        self.files = ParsedFiles(directories, "cdi_spec_dirs", (".json", ".yaml"), parse_document)

    def read(self):
        return Catalogue(CdiFile(*file) for file in self.files.read())


def text(value: str) -> str:
    devices = [{"name": "0", "containerEdits": {"env": [f"A={value}"]}}]
    return json.dumps({"cdiVersion": "0.6.0", "kind": "vendor.com/gpu", "devices": devices})


def test_directories_that_do_not_exist_are_empty(tmp_path):
    assert CdiDirectories([tmp_path / "no"]).read().devices == ()


def test_files_are_read_anew_when_they_change_and_only_then(tmp_path):
    low, high = tmp_path / "etc", tmp_path / "run"
    low.mkdir()
    directories = CdiDirectories([low, high])
    (low / "a.json").write_text(text("1"))
    assert directories.read().edits([NAME]).env == ("A=1",)
    assert directories.files.read() is directories.files.read()
    (low / "a.json").write_text(text("2"))  # the same size, perhaps within one tick
    os.utime(low / "a.json", ns=(1, 1))
    assert directories.read().edits([NAME]).env == ("A=2",)
    high.mkdir()
    (high / "b.yaml").write_text(text("3"))
    (high / "ignored.yml").write_text(text("4"))
    assert directories.read().edits([NAME]).env == ("A=3",)
    (high / "b.yaml").unlink()
    (low / "a.json").unlink()
    with pytest.raises(FailedPrecondition, match="no file describes it"):
        directories.read().edits([NAME])


def test_a_file_that_cannot_be_used_spoils_no_other(tmp_path):
    (tmp_path / "good.json").write_text(text("1"))
    (tmp_path / "latin.json").write_bytes(b"\xff")
    (tmp_path / "text.yaml").write_text("a: [")
    (tmp_path / "directory.json").mkdir()
    (tmp_path / "link.json").symlink_to("nowhere")
    os.mkfifo(tmp_path / "fifo.json")
    catalogue = CdiDirectories([tmp_path]).read()
    assert catalogue.devices == (NAME,)
    assert {path.rpartition("/")[2] for path in catalogue.problems} == {
        "latin.json", "text.yaml", "directory.json", "link.json", "fifo.json",
    }  # fmt: skip


def test_a_link_that_comes_to_life_is_seen(tmp_path):
    (tmp_path / "a.json").symlink_to(tmp_path / "target")
    directories = CdiDirectories([tmp_path])
    assert directories.read().devices == ()
    (tmp_path / "target").write_text(text("1"))
    assert directories.read().devices == (NAME,)


def test_no_file_in_directories_is_known_without_a_look_until_there_is_one(tmp_path, monkeypatch):
    absent, empty = tmp_path / "absent", tmp_path / "empty"
    empty.mkdir()
    files = ParsedFiles([absent, empty], "hooks_dirs", (".json",), str)
    assert not files.still_empty()
    files.read()
    assert not files.still_empty()  # the directory is so new that an entry could leave the same time
    monkeypatch.setattr(parsed_files, "_SETTLED_NS", -(10**9))
    files.read()
    assert files.still_empty()
    (empty / "a.json").write_text("{}")
    assert not files.still_empty()
    assert len(files.read()) == 1
    assert not files.still_empty()
    (empty / "a.json").unlink()
    files.read()
    assert files.still_empty()
    absent.mkdir()
    assert not files.still_empty()
