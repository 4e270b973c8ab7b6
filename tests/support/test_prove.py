from __future__ import annotations

from tests.support.prove import Outcome, Run, merge, read_report, render

REPORT = """<?xml version="1.0"?>
<testsuites><testsuite name="pytest" tests="4" failures="1" errors="1" skipped="1" time="12.3">
<testcase classname="tests.a" name="works"/>
<testcase classname="tests.a" name="breaks">
<failure message="assert 1 == 2&#10;more"/></testcase>
<testcase classname="tests.a" name="cannot"><error message="fixture"/></testcase>
<testcase classname="tests.a" name="later"><skipped message="needs root"/></testcase>
</testsuite></testsuites>"""


def test_a_report_is_counted_and_its_reasons_are_kept(tmp_path):
    path = tmp_path / "report.xml"
    path.write_text(REPORT)
    outcome = read_report("tests/a", path)
    assert (outcome.passed, outcome.failed, outcome.skipped, outcome.seconds) == (1, 2, 1, 12.3)
    assert outcome.reasons == (
        "failure: tests.a::breaks: assert 1 == 2",
        "error: tests.a::cannot: fixture",
        "skipped: tests.a::later: needs root",
    )


FIRST = Run("0123456789ab", 7, "2026-01-02 03:04")
SECOND = Run("ba9876543210", 8, "2026-02-03 04:05")


def test_each_part_has_its_figures_seed_commit_and_date():
    text = render(merge("", [Outcome("tests/a", 3, 1, 1, 1.6, ("skipped: x", "failure: y"))], FIRST))
    assert "| tests/a | 3 | 1 | 1 | 2 | 7 | 0123456789ab | 2026-01-02 03:04 |" in text
    assert "### tests/a\n\n- skipped: x\n- failure: y\n" in text


def test_a_run_replaces_the_rows_of_its_own_parts_only():
    before = render(
        merge(
            "", [Outcome("tests/a", 3, 0, 1, 1, ("skipped: x",)), Outcome("tests/b", 1, 1, 0, 1, ())], FIRST
        )
    )
    text = render(merge(before, [Outcome("tests/b", 2, 0, 0, 5, ())], SECOND))
    assert "| tests/a | 3 | 0 | 1 | 1 | 7 | 0123456789ab | 2026-01-02 03:04 |" in text
    assert "| tests/b | 2 | 0 | 0 | 5 | 8 | ba9876543210 | 2026-02-03 04:05 |" in text
    assert text.count("| tests/b |") == 1
    assert "- skipped: x" in text
    assert render(merge(text, [], SECOND)) == text
