from __future__ import annotations

import argparse
import importlib
import subprocess
import sys

import pytest

from noded.cli import grammar
from noded.cli.main import run


def commands(parser: argparse.ArgumentParser) -> list[str]:
    """The `run` of every command in the grammar."""
    found = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                if child.get_default("run"):
                    found.append(child.get_default("run"))
                found += commands(child)
    return found


@pytest.mark.parametrize("name", commands(grammar.parser()))
def test_every_command_names_a_function(name):
    module, function = name.split(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_the_version_is_printed_without_loading_the_daemon():
    program = "import sys; from noded.cli.main import run; run(['--version']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    version, modules = done.stdout.splitlines()
    assert version.startswith("noded 0.")
    assert not {"trio", "asyncio", "grpclib", "betterproto2", "rich"} & set(modules.split())


def test_an_unknown_command_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as caught:
        run(["frobnicate"])
    assert caught.value.code == 2
    assert "invalid choice: 'frobnicate'" in capsys.readouterr().err


def test_an_absent_daemon_is_one_line_on_stderr(capsys, tmp_path):
    address = f"unix://{tmp_path}/noded.sock"
    assert run(["pods", "--address", address]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"noded: cannot reach noded: {address} does not exist; is the daemon running?\n"


def test_an_address_that_is_no_unix_socket_is_refused(capsys):
    assert run(["ps", "--address", "localhost:80"]) == 1
    assert "expected unix:///PATH" in capsys.readouterr().err


def test_debug_shows_the_traceback(tmp_path):
    with pytest.raises(Exception, match="does not exist"):
        run(["pods", "--debug", "--address", f"unix://{tmp_path}/noded.sock"])


def test_the_address_comes_from_the_environment(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("NODED_ADDRESS", f"unix://{tmp_path}/other.sock")
    assert run(["status"]) == 1
    assert "other.sock does not exist" in capsys.readouterr().err


def test_a_broken_configuration_is_named_with_its_file(tmp_path, capsys):
    path = tmp_path / "noded.toml"
    path.write_text("rooot = '/x'\n")
    assert run(["config", "check", "--config", str(path)]) == 1
    assert str(path) in capsys.readouterr().err


def test_the_default_configuration_is_valid(tmp_path, capsys):
    assert run(["config", "default"]) == 0
    path = tmp_path / "noded.toml"
    path.write_text(capsys.readouterr().out)
    assert run(["config", "check", "--config", str(path)]) == 0


def test_what_config_show_prints_can_be_loaded(tmp_path, capsys):
    path = tmp_path / "noded.toml"
    path.write_text("log_level = 'debug'\n[network]\nadd_timeout_seconds = 7.5\n")
    assert run(["config", "show", "--config", str(path)]) == 0
    shown = capsys.readouterr().out
    path.write_text(shown)
    assert run(["config", "show", "--config", str(path)]) == 0
    assert capsys.readouterr().out == shown
    assert 'log_level = "debug"' in shown


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "soon"])
def test_a_timeout_must_be_a_number_of_seconds(text, capsys):
    with pytest.raises(SystemExit):
        run(["pods", f"--timeout={text}"])
    assert "is not a number of seconds" in capsys.readouterr().err
