"""Another noded is run with the Python, the flags and the module path of this one."""

from __future__ import annotations

import json
import subprocess
import sys

from noded.cli import program

ASK = "import json, sys; from noded.cli import program; print(json.dumps(program.command('noded')))"


def test_it_runs_the_module_with_its_arguments():
    done = subprocess.run(
        [*program.command("noded"), "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("noded 0.")


def test_an_isolated_noded_runs_an_isolated_one(tmp_path):
    """As installed: no site packages, no current directory, only the module path that it was given."""
    path = [entry for entry in sys.path if entry]
    script = f"import sys; sys.path[:] = {path!r}; {ASK}"
    told = subprocess.run(
        [sys.executable, "-IBS", "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    command = json.loads(told.stdout)
    assert command[:4] == [sys.executable, "-I", "-S", "-B"]
    (tmp_path / "noded.py").write_text("raise SystemExit('the wrong noded')")
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.startswith("noded 0.")


def test_further_directories_come_last(tmp_path):
    (tmp_path / "added_here.py").write_text("print('found')")
    done = subprocess.run(
        program.command("added_here", further_paths=[str(tmp_path)]),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "found\n"
