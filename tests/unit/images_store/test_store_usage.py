"""The usage of containers is known also after a power cut."""

from __future__ import annotations

from pathlib import Path

import pytest

from noded.images.snapshots import Snapshots
from noded.images.usage import Base, all_usage, container_usage, read_base
from noded.model.paths import Layout


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"{}", b'{"odd": 1}', b'{"used_bytes": "1"}', b"\xff\0"])
def test_a_base_that_cannot_be_read_counts_as_none(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "odd/tree").mkdir(parents=True)
    (tmp_path / "odd/tree/file").write_bytes(b"x" * 10_000)
    (tmp_path / "odd/base.json").write_bytes(text)
    (tmp_path / "good").mkdir()
    (tmp_path / "good/base.json").write_text('{"used_bytes": 1, "used_inodes": 2, "shared": true}')
    assert read_base(tmp_path / "odd") == Base()
    assert read_base(tmp_path / "good") == Base(1, 2, True)
    assert container_usage(tmp_path / "odd")[0] >= 10_000
    assert all_usage(tmp_path)[0] >= 10_000


def test_an_empty_driver_file_means_the_configured_driver(tmp_path: Path) -> None:
    layout = Layout(root=tmp_path / "root", state=tmp_path / "state")
    data = layout.container_data("c1")
    (data / "upper").mkdir(parents=True)
    (data / "driver").touch()
    snapshots = Snapshots(layout, _Layers(), "vfs")
    assert snapshots._driver_of(data, "").name == "vfs"
    assert (data / "driver").read_text() == "vfs", "written anew"


class _Layers:
    """No layers; nothing is mounted."""

    directory = Path("/nonexistent")

    def tree(self, chain: str) -> Path:
        raise AssertionError(chain)
