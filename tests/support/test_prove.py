from __future__ import annotations

from tests.support.prove import Outcome, read_report, render

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


def test_the_results_name_commit_seed_and_sums():
    outcomes = [Outcome("tests/a", 3, 0, 1, 1.2, ("skipped: x",)), Outcome("tests/b", 4, 1, 0, 2.3, ())]
    text = render(outcomes, "0123456789ab", 7)
    assert "Commit: 0123456789ab" in text
    assert "Seed: 7" in text
    assert "| **all** | 7 | 1 | 1 | 4 |" in text
    assert "- skipped: x" in text
