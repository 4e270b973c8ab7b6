"""Packages as files: the same bytes from each build, and nothing that their linters mind."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from tests.packaging.roots import PACKAGING, WORK, build_packages

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("proving")]


@pytest.mark.parametrize("kind", ["deb", "rpm"])
def test_two_builds_give_the_same_bytes(kind, built, tmp_path):
    # Downloads are shared, nothing else: another place, another user's environment.
    work = tmp_path / "work"
    work.mkdir()
    (work / "wheels").symlink_to(WORK / "wheels")
    again = sorted(
        build_packages(
            kind,
            tmp_path / "again",
            work=work,
            environment={"TZ": "Asia/Tokyo", "HOME": "/", "LC_ALL": "C.UTF-8"},
        )
    )
    assert [path.name for path in again] == [path.name for path in built(kind)]
    for first, second in zip(built(kind), again, strict=True):
        assert first.read_bytes() == second.read_bytes(), first.name


@pytest.mark.skipif(shutil.which("rpmlint") is None, reason="rpmlint is not installed")
def test_rpmlint_finds_nothing(built):
    done = subprocess.run(
        ["rpmlint", "--config", str(PACKAGING / "rpm" / "rpmlint.toml"), *map(str, built("rpm"))],
        capture_output=True, text=True,
    )  # fmt: skip
    findings = re.findall(r"^\S+: [EW]: .*", done.stdout, re.MULTILINE)
    assert not findings
    assert " 0 errors, 0 warnings" in done.stdout


@pytest.mark.skipif(shutil.which("lintian") is None, reason="lintian is not installed")
def test_lintian_finds_nothing(built):
    done = subprocess.run(["lintian", "--allow-root", *built("deb")], capture_output=True, text=True)
    assert re.findall(r"^[EW]: .*", done.stdout, re.MULTILINE) == []
