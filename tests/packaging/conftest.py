"""Packages as `make deb rpm` builds them, and root file systems to install them in."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PACKAGING = Path(__file__).resolve().parents[2] / "packaging"
if str(PACKAGING) not in sys.path:
    sys.path.append(str(PACKAGING))  # for `import noded_packaging`

from tests.packaging.roots import KEPT, Root, kept_packages, unpacked_root


@pytest.fixture
def proving(counts) -> None:
    """For tests that take minutes."""
    if not counts(0, 1):
        pytest.skip("builds and installs whole packages: part of `make prove`")


@pytest.fixture(scope="session")
def built() -> Callable[[str], list[Path]]:
    """`built("deb")`: paths of all packages of this tree. Skips where the wheels cannot be had."""

    def build(kind: str) -> list[Path]:
        if kind == "rpm" and shutil.which("rpmbuild") is None:
            pytest.skip("rpmbuild is not installed: apt-get install rpm")
        return kept_packages(kind)

    return build


@pytest.fixture
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Root]:
    """A root file system of its own; the parameter is the suite, trixie without one."""
    suite = getattr(request, "param", "trixie")
    with unpacked_root(suite, tmp_path / "root", KEPT / f"{suite}.tar") as opened:
        yield opened
