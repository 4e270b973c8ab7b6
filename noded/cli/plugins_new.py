"""`noded plugins new NAME`: a distribution with a runtime plugin that works, to start one's own from."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from noded.cli.documents.plugins import PluginWritten
from noded.cli.table import print_json
from noded.errors import AlreadyExists, InvalidArgument

_NAME = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")

_FILES = {
    "pyproject.toml": """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "noded-plugin-@NAME@"
version = "0.1.0"
description = "noded runtime plugin: @NAME@"
requires-python = ">=3.11"
dependencies = ["noded"]

[project.entry-points.noded]
@NAME@ = "noded_@MODULE@.plugin"

[tool.setuptools.packages.find]
include = ["noded_@MODULE@*"]

[tool.pytest.ini_options]
testpaths = ["tests"]
markers = ["root: needs root, and changes the host only in ways it undoes"]
""",
    "README.md": """\
# noded-plugin-@NAME@

The runtime type `@NAME@` for [noded](https://pypi.org/project/noded/). Install it beside noded, then:

    # /etc/noded/noded.toml
    [runtimes.@NAME@]
    type = "@NAME@"

`noded plugins list` shows the handler; a RuntimeClass with `handler: @NAME@` uses it.

    pytest                          # as root: also the acceptance suite
    noded plugins check @NAME@      # the same suite over the handler of this node
""",
    "noded_@MODULE@/__init__.py": '"""noded\'s runtime plugin @NAME@."""\n',
    "noded_@MODULE@/plugin.py": '''\
"""Runtime type `@NAME@`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from noded.api import (
    FeatureTable,
    OciOptions,
    OciQuirks,
    OciRuntime,
    Runtime,
    RuntimeHost,
    RuntimeType,
    hookimpl,
)

# How the program differs from runc: `noded.api.OciQuirks` says what can be told.
@UPPER@ = OciQuirks(
    program="runc",  # put the name of your runtime's program here
    package="runc",  # and what to install when it is missing
    features=FeatureTable(),
)


@dataclass(frozen=True, slots=True)
class Options:
    """`[runtimes.HANDLER]` of type `@NAME@`."""

    path: str = ""  # name or absolute path of the program, "" = the type's own
    debug: bool = False  # an example: makes the runtime talkative


def open_@MODULE@(handler: str, options: Options, host: RuntimeHost) -> Runtime:
    """Open a handler. Raise noded.api.InvalidArgument for options that cannot be."""
    flags = ("--debug",) if options.debug else ()
    return OciRuntime(handler, @UPPER@, OciOptions(path=options.path, global_args=flags), host)


@hookimpl
def noded_runtime_types() -> Iterable[RuntimeType]:
    return (RuntimeType("@NAME@", Options, open_@MODULE@, binaries=(@UPPER@.program, "conmon")),)
''',
    "tests/conftest.py": '''\
"""The handler that the acceptance suite is about."""

from __future__ import annotations

import pytest

from noded.testing import HandlerCase
from noded.testing.fixtures import node, pod

__all__ = ["handler", "node", "pod"]


@pytest.fixture(scope="session", params=[HandlerCase("@NAME@", 'type = "@NAME@"')], ids=str)
def handler(request: pytest.FixtureRequest) -> HandlerCase:
    case: HandlerCase = request.param
    return case
''',
    "tests/test_acceptance.py": '''\
"""What every runtime handler does. Needs root and the runtime's program."""

from __future__ import annotations

from noded.testing.acceptance import *  # noqa: F403
''',
    "tests/test_plugin.py": '''\
"""What can be told without a pod."""

from __future__ import annotations

from noded.plugins import discover
from noded_@MODULE@ import plugin


def test_noded_finds_the_plugin_and_its_type() -> None:
    (found,) = [each for each in discover().plugins if each.name == "@NAME@"]
    assert found.problem == ""
    assert found.types == ("@NAME@",)


def test_the_type_has_options_with_defaults() -> None:
    (offered,) = plugin.noded_runtime_types()
    assert offered.options() == plugin.Options()
''',
}


def new(arguments: argparse.Namespace) -> int:
    """Write the files. Raises: InvalidArgument for a bad name, AlreadyExists for a directory that exists."""
    directory = Path(arguments.directory or arguments.name)
    paths = write(arguments.name, directory)
    if arguments.json:
        written: PluginWritten = {"files": list(map(str, paths))}
        print_json(written)
        return 0
    for path in paths:
        print(path)
    print(f"\nNext: pip install --editable {directory}, then: noded plugins list")
    return 0


def write(name: str, directory: Path) -> list[Path]:
    """Write a distribution for the runtime type `name`; return its files."""
    if not _NAME.fullmatch(name):
        raise InvalidArgument(f"{name!r} is not a name: use lower-case letters, digits and single dashes")
    if directory.exists() and any(directory.iterdir()):
        raise AlreadyExists(f"{directory} is there already: choose another --directory")
    module = name.replace("-", "_")
    written = []
    for template, text in _FILES.items():
        path = directory / _filled(template, name, module)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_filled(text, name, module))
        written.append(path)
    return written


def _filled(text: str, name: str, module: str) -> str:
    return text.replace("@NAME@", name).replace("@MODULE@", module).replace("@UPPER@", module.upper())
