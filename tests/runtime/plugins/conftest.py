"""Distributions with plugins that a daemon finds, without an installation."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

Install = Callable[[str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """`install(distribution, source of its plugin module)` for daemons that the test starts after it."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.syspath_prepend(str(site))  # a daemon of the test gets its module path

    def write(distribution: str, source: str) -> None:
        module = distribution.replace("-", "_")
        (site / f"{module}.py").write_text(source)
        information = site / f"{module}-1.0.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (information / "entry_points.txt").write_text(f"[noded]\n{module} = {module}\n")

    return write
