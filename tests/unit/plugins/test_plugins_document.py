"""docs/plugins.md says what is: every hook with its exact arguments, every field of a value, the matrix."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path

import pytest

from noded import api, hookspecs
from noded.testing.cases import matrix
from tests.runtime.acceptance.conftest import CASES

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "plugins.md"
TEXT = DOCUMENT.read_text()
HOOKS = [
    function
    for name, function in vars(hookspecs).items()
    if inspect.isfunction(function) and name.startswith("noded_")
]


def section(name: str) -> str:
    _, _, rest = TEXT.partition(f"### {name}(")
    return re.split(r"^##+ ", rest, maxsplit=1, flags=re.M)[0]


def test_there_are_hooks():
    assert len(HOOKS) >= 4


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook.__name__)
def test_every_hook_is_documented_with_its_exact_arguments(hook):
    arguments = list(inspect.signature(hook).parameters)
    assert f"### {hook.__name__}({', '.join(arguments)})\n" in TEXT
    words = section(hook.__name__)
    for argument in arguments:
        assert f"`{argument}`" in words, f"{hook.__name__}: what is {argument}?"
    assert re.search(r"Deadline: \d+ s", words)
    deadline = re.search(r"Deadline: (\d+) s", words)
    told = re.search(r"Deadline: (\d+) s", inspect.getdoc(hook) or "")
    assert deadline is not None
    assert told is not None
    assert deadline[1] == told[1]


def test_no_hook_is_documented_that_does_not_exist():
    documented = set(re.findall(r"^### (noded_\w+)\(", TEXT, flags=re.M))
    assert documented == {hook.__name__ for hook in HOOKS}


@pytest.mark.parametrize("value", [api.Event, api.Edit, api.Finding, api.RuntimeType, api.RuntimeHost])
def test_the_fields_of_a_value_are_those_of_the_document(value):
    fields = [field.name for field in dataclasses.fields(value)]
    if value is api.RuntimeType:
        fields = ["name", "options", "open", "binaries"]
    assert f"`{value.__name__}({', '.join(fields)})`" in TEXT


def test_the_kinds_of_events_are_those_of_the_document():
    kinds = set(re.findall(r'"(\w+_\w+)"', inspect.getdoc(api.Event) or ""))
    assert kinds
    assert kinds <= set(re.findall(r"`(\w+)`", TEXT))


def test_the_matrix_of_the_handlers_is_up_to_date():
    assert f"\n{matrix(CASES)}\n" in TEXT, f"put this into {DOCUMENT.name}:\n{matrix(CASES)}"
