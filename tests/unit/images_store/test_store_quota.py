"""Limits of containers are cleaned up also when noded is killed meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from noded.host import project_quota
from noded.host.filesystems import XFS
from noded.images import quota


def test_a_limit_goes_before_the_directory_that_names_its_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Quotas need a file system that has them; what is shown here is the order."""
    data = tmp_path / "c1"
    data.mkdir()
    (data / "quota").touch()
    limits: list[tuple[int, int]] = []
    monkeypatch.setattr(quota, "filesystem_magic", lambda path: XFS)
    monkeypatch.setattr(project_quota, "project_of", lambda path: 7)
    monkeypatch.setattr(project_quota, "limit", lambda path, project, size: limits.append((project, size)))

    def killed(path: Path) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(quota, "_remove_data", killed)
        with pytest.raises(SystemExit):
            quota.Quotas().remove(data)
    assert limits == [(7, 0)]
    quota.Quotas().remove(data)
    assert not data.exists()
