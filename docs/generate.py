#!/usr/bin/env python3
"""Write the generated pages of this directory: see PAGES.

Usage: docs/generate.py [OUTPUT_DIRECTORY]

configuration.md comes from the comments of `noded.config` and of the plugins, json.md from those of
`noded.cli.documents`, parity.md from tests/docs/parity.tsv, conformance.md from
tests/conformance/expected.py, the figures of comparison.md from tests/bench/RESULTS.md. Tests compare the
pages with what this writes.
"""

from __future__ import annotations

import csv
import dataclasses
import sys
import typing
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from noded_gvisor.plugin import RunscOptions
from noded_kata.plugin import KataOptions, ShimTypeOptions

from noded.api import OciOptions
from noded.cli.documents import schema
from noded.cli.schema import documents
from noded.config import Config, HandlerConfig, WorkloadConfig, WorkloadResources
from noded.config_text import documentation
from noded.settings import RELOADABLE

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS))
sys.path.insert(0, str(DOCS.parent))
import measured

from tests.conformance import expected

REPOSITORY = DOCS.parent
PARITY = REPOSITORY / "tests" / "docs" / "parity.tsv"

# Runtime types of the plugins in this repository, with the class of their own keys.
TYPES = {
    '"runc", "crun"': OciOptions,
    '"runsc"': RunscOptions,
    '"kata"': KataOptions,
    '"shim"': ShimTypeOptions,
}
STATES = ("done", "untested", "refused", "open")


class Feature(NamedTuple):
    """One row of the parity table.

    Args:
        area: heading under which it is shown.
        crio, containerd: "yes", "no" or "part".
        state: one of STATES.
        proof: tests as PATH::NAME, separated by spaces; NAME may be left out.
        note: the reason of what is not done, or the limit of what is.
    """

    area: str
    feature: str
    crio: str
    containerd: str
    state: str
    proof: str
    note: str


def features() -> list[Feature]:
    """Read the rows of the parity table. Raises: TypeError for a line without seven fields."""
    with PARITY.open(encoding="utf-8", newline="") as file:
        lines = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [Feature(*line) for line in lines if line and not line[0].startswith("#")]


def parity() -> str:
    """Return parity.md."""
    rows = features()
    count = Counter(row.state for row in rows)
    lines = [
        "# Parity with CRI-O and containerd",
        "",
        "Written by `docs/generate.py` from `tests/docs/parity.tsv`; a test checks that each named test",
        "exists. The peers were read on 2026-08-22: CRI-O's main branch and containerd 2.4.0-beta.",
        "",
        f"{len(rows)} rows: "
        + ", ".join(f"{count[state]} {state}" for state in STATES if count[state])
        + ". *done*: a test proves it. *untested*: the code is there, no test of its",
        "own. *refused*: left out on purpose. *open*: missing.",
    ]
    for area in dict.fromkeys(row.area for row in rows):
        lines += ["", f"## {area}", ""]
        lines += ["| feature | CRI-O | containerd | noded | test, limit or reason |", "|---|---|---|---|---|"]
        lines += [
            f"| {_cell(row.feature)} | {row.crio} | {row.containerd} | {row.state} | {_evidence(row)} |"
            for row in rows
            if row.area == area
        ]
    return "\n".join(lines) + "\n"


def _evidence(row: Feature) -> str:
    links = []
    for test in row.proof.split():
        path, _, name = test.partition("::")
        links.append(f"[{(name or Path(path).stem).removeprefix('test_').replace('_', ' ')}](../{path})")
    return "; ".join(filter(None, (*links, _cell(row.note))))


def configuration() -> str:
    """Return configuration.md."""
    sections = {
        field.name: getattr(Config(), field.name)
        for field in dataclasses.fields(Config)
        if dataclasses.is_dataclass(getattr(Config(), field.name))
    }
    lines = [
        "# Configuration",
        "",
        "Written by `docs/generate.py` from `noded/config.py`; `noded config default` prints it as TOML.",
        "",
        "noded reads `/etc/noded/noded.toml`, then `/etc/noded/conf.d/*.toml` in the order of their names:",
        "tables are merged, a list replaces an earlier one. No file and no key is required. An unknown key",
        "or a wrong value is an error with file, line and the nearest key: `noded config check`.",
        "",
        f"`systemctl reload noded` applies {', '.join(f'`{name}`' for name in sorted(RELOADABLE))}; other",
        "keys want a restart, which pods do not notice.",
        "",
        "## Top-level keys",
        "",
        *_table(Config, Config(), skip=(*sections, "runtimes", "workloads")),
    ]
    for name, section in sections.items():
        lines += ["", f"## [{name}]", "", _sentence(documentation(Config)[name]), ""]
        lines += _table(type(section), section)
    lines += ["", "## [runtimes.HANDLER]", "", _sentence(documentation(Config)["runtimes"]), ""]
    lines += [
        "Other keys of such a table belong to its `type`: see below, and [plugins.md](plugins.md#runtimes).",
        "",
        *_table(HandlerConfig, HandlerConfig("", ""), skip=("name", "options")),
    ]
    for types, cls in TYPES.items():
        lines += ["", f"### type {types}", "", *_table(cls, cls())]
    lines += ["", "## [workloads.NAME]", "", _sentence(documentation(Config)["workloads"]), ""]
    lines += _table(WorkloadConfig, WorkloadConfig(""), skip=("resources",))
    lines += ["", "### resources", "", *_table(WorkloadResources, WorkloadResources())]
    return "\n".join(lines) + "\n"


def comparison() -> str:
    """Return comparison.md with the newest figures."""
    page = (DOCS / "comparison.md").read_text(encoding="utf-8")
    return measured.filled(page, measured.RESULTS.read_text(encoding="utf-8"))


def conformance() -> str:
    """Return conformance.md."""
    lines = [
        "# Conformance",
        "",
        "Written by `docs/generate.py` from `tests/conformance/expected.py`.",
        "",
        "The test suite of the CRI, critest of cri-tools, runs against each handler without a retry, on",
        "runc and crun in three different orders. What does not pass must be in these tables, by name and",
        "number and with the words of the failure: a line too many fails as one too few.",
        "[RESULTS.md](../RESULTS.md) says when that was last shown. `make test` runs it once, with runc;",
        "where critest is not installed it is built, if there is Go.",
    ]
    node = expected.Node(apparmor=False, user_namespaces=False)
    for title, handler in (("runc, crun and containerd's shims", "runc"), ("gVisor", "runsc")):
        lines += ["", f"## {title}", "", "| specs | number | outcome | why |", "|---|---:|---|---|"]
        lines += [
            f"| `{_cell(line.pattern)}` | {line.count} | {line.status} | {_cell(line.reason)} |"
            for line in expected.table(handler, node)
        ]
    return "\n".join(lines) + "\n"


def json() -> str:
    """Return json.md."""
    lines = [
        "# JSON of commands",
        "",
        "Written by `docs/generate.py` from `noded/cli/documents`, which the commands are checked against;",
        "tests hold what each prints to it.",
        "",
        "`--json` has a command print one document; `inspect` and `images inspect` print nothing else,",
        "and `events`, `logs` and `stats --watch` print one a line. `noded schema COMMAND` prints the",
        "same as JSON Schema (2020-12), `noded schema` lists the commands. Keys may be added: readers",
        "skip those that they do not know. None changes its meaning or goes away. An error is a line on",
        "standard error and an exit status other than 0, with or without `--json`.",
        "",
        "Not here: `serve`, `exec`, `run`, `demo` and `plugins check`, which print what is not",
        "theirs, or text for people.",
    ]
    placed: set[str] = set()
    for command, (name, about) in documents().items():
        document = schema.find(name)
        lines += ["", f"## noded {command}", "", f"{about}: {_kind(document)}."]
        for object_name, cls in schema.objects(document).items():
            if object_name in placed:
                continue
            placed.add(object_name)
            said = schema.meanings(cls)
            lines += ["", f"### {object_name}", "", schema.about(cls), "", "| key | type | meaning |"]
            lines += ["|---|---|---|"]
            lines += [
                f"| `{key}` | {_cell(_kind(kind))} | {_cell(said[key])} |"
                for key, kind in schema.keys(cls).items()
            ]
    return "\n".join(lines) + "\n"


_WORDS: dict[Any, str] = {
    str: "string", bool: "true or false", int: "integer", float: "number",
    type(None): "null", Any: "any value",
}  # fmt: skip


def _kind(kind: Any) -> str:
    """A type in words, with links to the objects in it."""
    if kind in _WORDS:
        return _WORDS[kind]
    if typing.is_typeddict(kind):
        return f"[{kind.__name__}](#{kind.__name__.lower()})"
    arguments = typing.get_args(kind)
    origin = typing.get_origin(kind)
    if origin is list:
        return f"list of {_kind(arguments[0])}"
    if origin is dict:
        values = "" if arguments[1] is Any else f", of {_kind(arguments[1])}"
        return f"object{values}"
    if origin is typing.Literal:
        return ", ".join(f"`{each}`" for each in arguments)
    if origin is typing.NotRequired:
        return f"{_kind(arguments[0])}, may be missing"
    return " or ".join(_kind(each) for each in arguments)


def _table(cls: type[Any], instance: Any, skip: Iterable[str] = ()) -> list[str]:
    documented = documentation(cls)
    rows = []
    for field in dataclasses.fields(cls):
        if field.name in skip:
            continue
        value = getattr(instance, field.name)
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        shown = "required" if required else _shown(value)
        rows.append(f"| `{field.name}` | {shown} | {_cell(documented[field.name])} |")
    return ["| key | default | meaning |", "|---|---|---|", *rows]


def _shown(value: Any) -> str:
    if value is None or value == "":
        return '`""`'
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return ", ".join(f"`{item}`" for item in value) or "none"
    if isinstance(value, dict):
        return "none"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


PAGES = {
    "comparison.md": comparison,
    "conformance.md": conformance,
    "configuration.md": configuration,
    "json.md": json,
    "parity.md": parity,
}


def main() -> None:
    output = Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS
    for name, page in PAGES.items():
        (output / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
