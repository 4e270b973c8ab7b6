"""noded and its plugins never hand anything to a shell."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
SHELLS = {"system", "popen", "getoutput", "getstatusoutput", "create_subprocess_shell"}
SOURCES = sorted(
    path
    for base in ("noded", "plugins/runc/noded_runc", "plugins/gvisor/noded_gvisor", "plugins/kata/noded_kata")
    for path in (REPOSITORY / base).rglob("*.py")
)


def shells(source: str) -> Iterator[int]:
    """The lines that start a shell."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        asked = any(
            keyword.arg == "shell"
            and not (isinstance(keyword.value, ast.Constant) and not keyword.value.value)
            for keyword in node.keywords
        )
        words = [
            item.value
            for argument in node.args
            if isinstance(argument, ast.List | ast.Tuple)
            for item in argument.elts
            if isinstance(item, ast.Constant)
        ]
        started = len(words) > 1 and words[0] in ("sh", "bash", "/bin/sh", "/bin/bash") and "-c" in words
        if name in SHELLS or asked or started:
            yield node.lineno


@pytest.mark.parametrize(
    "source",
    [
        "os.system('ls ' + name)",
        "subprocess.run(command, shell=True)",
        "trio.run_process(command, shell=flag)",
        "run(['sh', '-c', text])",
        "await asyncio.create_subprocess_shell(text)",
    ],
)
def test_a_shell_is_seen(source):
    assert list(shells(source)) == [1]


def test_no_line_of_noded_starts_a_shell():
    assert len(SOURCES) > 300
    found = [
        f"{path.relative_to(REPOSITORY)}:{line}" for path in SOURCES for line in shells(path.read_text())
    ]
    assert found == []
