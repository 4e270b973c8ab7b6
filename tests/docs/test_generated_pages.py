"""The generated pages of docs are what their generator writes, and say what is so."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import typing
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"

# Fields that are no keys of a table: its name, and tables within it.
INNER = {("HandlerConfig", "name"), ("HandlerConfig", "options"), ("WorkloadConfig", "resources")}

_spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
generate = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(generate)


@pytest.mark.parametrize("page", generate.PAGES)
def test_a_page_is_what_its_generator_writes(page):
    # `make regen` writes them anew.
    assert (DOCS / page).read_text() == generate.PAGES[page]()


def test_figures_of_the_comparison_are_those_that_the_bench_has_worked_out():
    """The bench writes ratios to its goals itself."""
    measured = generate.measured
    newest = "## Run of " + measured.RESULTS.read_text().split("\n## Run of ")[1]
    row = r"^\| (.+?) \| noded runc \| containerd runc \| ([0-9.]+) \|"
    theirs = {name: float(ratio) for name, ratio in re.findall(row, newest, re.MULTILINE)}
    table = re.findall(r"^\| (.+?) \| ([0-9.]+) \| 2", measured.measured(f"\n{newest}"), re.MULTILINE)
    ours = {name: float(ratio) for name, ratio in table}
    compared = 0
    for name, measure, cpu in measured.SHOWN:
        goal = theirs.get(f"{measure} (CPU)" if cpu else measure)
        if goal is not None and name in ours:
            assert ours[name] == pytest.approx(goal, rel=0.03, abs=0.05), name
            compared += 1
    assert compared > 3  # a run of pulls alone has four


def classes() -> list[type]:
    """Every kind of table that a configuration has."""
    made = vars(generate)
    values = [getattr(made["Config"](), field.name) for field in dataclasses.fields(made["Config"])]
    sections = [type(value) for value in values if dataclasses.is_dataclass(value)]
    named = [made[name] for name in ("Config", "HandlerConfig", "WorkloadConfig", "WorkloadResources")]
    return [*named, *sections, *made["TYPES"].values()]


def choices(kind: object) -> set[str]:
    """What a Literal allows, those within it too."""
    inner = typing.get_args(kind)
    if typing.get_origin(kind) is typing.Literal:
        return {value for value in inner if isinstance(value, str)}
    return set().union(*(choices(one) for one in inner))


@pytest.mark.parametrize("cls", classes(), ids=lambda cls: cls.__name__)
def test_every_key_has_a_meaning_with_each_value_that_it_takes(cls):
    told = generate.documentation(cls)
    kinds = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if (cls.__name__, field.name) in INNER:
            continue
        assert told[field.name], field.name
        if field.name != "storage_driver" or cls.__name__ != "HandlerConfig":  # "that of [images]" has them
            assert all(value in told[field.name] for value in choices(kinds[field.name])), field.name


def test_the_index_names_every_page():
    named = set(re.findall(r"\]\(([\w-]+\.md)\)", (DOCS / "README.md").read_text()))
    assert named == {path.name for path in DOCS.glob("*.md")} - {"README.md"}


def pages() -> list[Path]:
    return [REPOSITORY / name for name in ("README.md", "ARCHITECTURE.md", "SECURITY.md")] + sorted(
        DOCS.glob("*.md")
    )


def anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", pages(), ids=lambda path: path.name)
def test_links_between_pages_lead_somewhere(page):
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        name, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


@pytest.mark.parametrize("page", pages(), ids=lambda path: path.name)
def test_keys_of_the_configuration_in_toml_examples_are_known(page, tmp_path):
    from noded import settings

    for number, block in enumerate(re.findall(r"^```toml\n(.*?)^```", page.read_text(), re.M | re.S)):
        example = tmp_path / f"{number}.toml"
        example.write_text(block.replace("…", ""))
        settings.load(example)


def defined(test: str) -> bool:
    """Whether a test that is written as PATH::NAME, or as PATH, is there."""
    path, _, name = test.partition("::")
    if not (REPOSITORY / path).is_file():
        return False
    definitions = rf"^(?:async )?def {re.escape(name)}\(" if name else r"^(?:async )?def test_"
    return bool(re.search(definitions, (REPOSITORY / path).read_text(), re.MULTILINE))


@pytest.mark.parametrize("row", generate.features(), ids=lambda row: row.feature)
def test_a_row_of_the_parity_table_is_proven_or_explained(row):
    assert {row.crio, row.containerd} <= {"yes", "no", "part"}
    assert row.state in generate.STATES
    assert row.feature
    if row.state == "done":
        assert row.proof, "what no test proves is untested"
    if row.state == "refused":
        assert row.note, "a refusal has a reason"
    if row.state in ("untested", "open"):
        assert not row.proof
    assert [test for test in row.proof.split() if not defined(test)] == []


def test_no_feature_is_in_the_parity_table_twice():
    rows = [(row.area, row.feature) for row in generate.features()]
    assert len(rows) == len(set(rows))
