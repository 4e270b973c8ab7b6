"""`noded plugins new` and what `describe` chooses."""

from __future__ import annotations

import ast
import tomllib

import pytest

from noded.cli.main import run
from noded.cli.plugins_new import write
from noded.errors import AlreadyExists, InvalidArgument


def test_the_files_of_a_new_plugin_parse_and_name_it(tmp_path):
    files = {path.relative_to(tmp_path).as_posix(): path for path in write("my-vm", tmp_path)}
    project = tomllib.loads(files["pyproject.toml"].read_text())
    assert project["project"]["entry-points"]["noded"] == {"my-vm": "noded_my_vm.plugin"}
    assert "noded_my_vm/plugin.py" in files
    for path in files.values():
        assert "@" not in path.read_text().replace("@dataclass", "").replace("@hookimpl", "").replace(
            "@pytest.fixture", ""
        )
        if path.suffix == ".py":
            ast.parse(path.read_text())


@pytest.mark.parametrize("name", ["", "A", "a_b", "a--b", "-a", "a-", "1a", "a b", "a/b", "../a"])
def test_a_bad_name_is_refused(name, tmp_path):
    with pytest.raises(InvalidArgument, match="lower-case"):
        write(name, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_nothing_is_written_over(tmp_path):
    write("demo", tmp_path / "demo")
    with pytest.raises(AlreadyExists, match="another --directory"):
        write("demo", tmp_path / "demo")


@pytest.fixture
def config(tmp_path):
    """An empty configuration file: the defaults."""
    path = tmp_path / "noded.toml"
    path.write_text("")
    return str(path)


def test_describe_lists_the_names_there_are_for_one_that_is_not(config, capsys):
    assert run(["plugins", "describe", "sorcery", "--config", config]) == 1
    assert "'sorcery'; plugins: " in capsys.readouterr().err


def test_describe_shows_options_with_their_meaning(config, capsys):
    assert run(["plugins", "describe", "runsc", "--config", config]) == 0
    text = capsys.readouterr().out
    assert "runtime type runsc: options" in text
    assert "  strace = no\n      put system calls of the containers into the debug logs" in text
    assert "noded_runtime_types" in text
