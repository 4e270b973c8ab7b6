"""Distributions by third parties: built as wheels, installed without a network, found, used."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parent / "example"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a scratch environment that sees all packages of this one."""
    directory = tmp_path_factory.mktemp("venv")
    venv.create(directory, with_pip=False, symlinks=True)
    major, minor = sys.version_info[:2]
    site = directory / "lib" / f"python{major}.{minor}" / "site-packages"
    packages = sysconfig.get_path("purelib")
    # addsitedir, for the .pth files of editable installations count, too.
    (site / "outer.pth").write_text(f"import site; site.addsitedir({packages!r})\n")
    return directory / "bin" / "python"


def run(python: Path, *arguments: str | Path, directory: Path | None = None) -> str:
    done = subprocess.run(
        [python, *arguments],
        cwd=directory or "/",
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def build_and_install(python: Path, source: Path, directory: Path) -> None:
    """Build a wheel from a copy of the source, so that nothing is written beside it, and install it."""
    copy = directory / "source"
    shutil.copytree(source, copy)
    pip = ("-m", "pip", "--quiet", "--no-input")
    wheels = directory / "wheels"
    run(python, *pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", wheels, copy)
    (wheel,) = wheels.glob("*.whl")
    run(python, *pip, "install", "--no-deps", "--force-reinstall", wheel)


def test_a_new_plugin_installs_is_listed_and_passes_its_own_tests(python, tmp_path):
    source = tmp_path / "demo"
    run(python, "-m", "noded", "plugins", "new", "demo", "--directory", source)
    build_and_install(python, source, tmp_path)
    config = tmp_path / "noded.toml"
    config.write_text('[runtimes.demo]\ntype = "demo"\n')
    listed = json.loads(run(python, "-m", "noded", "plugins", "list", "--json", "--config", config))
    (plugin,) = [each for each in listed["plugins"] if each["name"] == "demo"]
    assert plugin["distribution"] == "noded-plugin-demo"
    assert plugin["handlers"] == ["demo"]
    assert plugin["problem"] == ""
    tests = run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not root", directory=source)
    assert "2 passed" in tests
    described = json.loads(
        run(python, "-m", "noded", "plugins", "describe", "demo", "--json", "--config", config)
    )
    assert described["runtime_types"]["demo"]["options"]["path"]["meaning"].startswith(
        "name or absolute path"
    )


def test_the_code_of_a_runtime_plugin_is_short(tmp_path, python):
    source = tmp_path / "short"
    run(python, "-m", "noded", "plugins", "new", "short", "--directory", source)
    for plugin in (source / "noded_short" / "plugin.py", EXAMPLE / "noded_example" / "plugin.py"):
        assert len(plugin.read_text().splitlines()) < 60, plugin


def test_a_name_that_cannot_be_one_is_refused(python, tmp_path):
    for name in ("Demo", "a b", "-x", "1"):
        done = subprocess.run(
            [python, "-m", "noded", "plugins", "new", "--directory", tmp_path / "x", "--", name],
            capture_output=True, text=True, check=False, cwd="/",
        )  # fmt: skip
        assert done.returncode == 1
        assert "lower-case" in done.stderr
    assert not (tmp_path / "x").exists()


@pytest.mark.root
def test_an_installed_plugin_passes_the_acceptance_suite(python, tmp_path):
    build_and_install(python, EXAMPLE, tmp_path)
    config = tmp_path / "noded.toml"
    config.write_text('[runtimes.example]\ntype = "example"\n')
    chosen = "leaves_nothing or outlive or exec_tells or stop_signal_is_heard or memory_limit"
    report = run(python, "-m", "noded", "plugins", "check", "example", "-k", chosen, "--config", config)
    assert "5 passed" in report
