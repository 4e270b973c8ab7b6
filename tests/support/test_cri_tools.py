"""Finding the CRI's own tools."""

from __future__ import annotations

import pytest

from tests.support import cri_tools


@pytest.fixture
def nothing_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(cri_tools, "REPOSITORY", tmp_path)
    monkeypatch.delenv("CRI_TOOLS", raising=False)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path


def program(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_an_installed_program_is_taken(nothing_installed):
    program(nothing_installed / "bin" / "critest", "")
    assert cri_tools.find("critest") == str(nothing_installed / "bin" / "critest")


def test_without_go_it_is_said_loudly(nothing_installed):
    with pytest.raises(cri_tools.NotHere, match="NOR GO"):
        cri_tools.find("critest")


def test_a_program_is_built_once(nothing_installed):
    # "go test -c -o PROGRAM PACKAGE"
    program(nothing_installed / "bin" / "go", 'echo built >>"$0.calls"; echo "$5" >"$4"')
    built = cri_tools.find("critest")
    assert cri_tools.find("critest") == built
    with open(built) as file:
        assert file.read() == "sigs.k8s.io/cri-tools/cmd/critest\n"
    assert (nothing_installed / "bin" / "go.calls").read_text() == "built\n"


def test_a_failed_build_leaves_nothing_and_says_why(nothing_installed):
    program(nothing_installed / "bin" / "go", "echo no network >&2; exit 1")
    with pytest.raises(cri_tools.NotHere, match="no network"):
        cri_tools.find("crictl")
    left = sorted(path.name for path in nothing_installed.joinpath("build").rglob("*") if path.is_file())
    assert left == ["crictl.lock"]
