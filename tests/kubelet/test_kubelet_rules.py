"""The table of what kubelet relies on names tests that exist, and every file of tests here."""

from __future__ import annotations

import csv
import re
from pathlib import Path

HERE = Path(__file__).resolve().parent


def rows():
    with (HERE / "rules.tsv").open(newline="") as file:
        lines = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [line for line in lines if not line[0].startswith("#")]


def test_every_rule_names_tests_that_exist():
    for _, rule, tests in rows():
        for one in tests.split():
            path, _, name = one.partition("::")
            text = (HERE.parent / path).read_text()
            assert not name or re.search(rf"^def {name}\(", text, re.MULTILINE), f"{rule}: {one}"


def test_every_file_of_tests_shows_a_rule():
    named = {one.partition("::")[0] for row in rows() for one in row[2].split()}
    here = {f"kubelet/{path.name}" for path in HERE.glob("test_*.py")} - {f"kubelet/{Path(__file__).name}"}
    assert here <= named
