"""Every case against its golden spec. NODED_REGENERATE=1 rewrites them: then read the diff."""

from __future__ import annotations

import json
import os
from pathlib import Path

import jsonschema
import pytest
from spec_cases import CASES, ContainerInputs

from noded.spec.container import container_spec
from noded.spec.infra import infra_spec

HERE = Path(__file__).parent
GOLDEN = HERE / "golden"
SCHEMA = jsonschema.Draft202012Validator(json.loads((HERE / "schema.json").read_text()))
REGENERATE = os.environ.get("NODED_REGENERATE", "") not in ("", "0")


def generate(name: str) -> str:
    case = CASES[name]
    built = container_spec(case) if isinstance(case, ContainerInputs) else infra_spec(case)
    return json.dumps({"warnings": built.warnings, "spec": built.value}, indent=1) + "\n"


@pytest.mark.parametrize("name", CASES)
def test_a_case_gives_its_golden_spec(name):
    text, path = generate(name), GOLDEN / f"{name}.json"
    if REGENERATE:
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("name", CASES)
def test_a_golden_spec_is_a_valid_oci_spec(name):
    spec = json.loads(generate(name))["spec"]
    problems = [f"{error.json_path}: {error.message}" for error in SCHEMA.iter_errors(spec)]
    assert problems == []


def test_there_is_no_golden_spec_without_a_case():
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(CASES)
