"""What a rule says: one result for each thing looked at. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

SCHEMA = "noded.check/1"


class Verdict(StrEnum):
    OK = "ok"
    WARN = "warn"  # pods run, but something is or will be wrong
    FAIL = "fail"  # pods, or some of them, cannot run


# Exit statuses of `noded check`, for automation.
EXIT = {Verdict.OK: 0, Verdict.WARN: 1, Verdict.FAIL: 2}


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the report.

    Args:
        check: stable name, `subject.thing`, for automation.
        found: what is so, in a few words.
        why: why it matters; for people who do not know. "" only when all is well.
        fix: the command that cures it, or what to write where. "" only when all is well.
    """

    check: str
    verdict: Verdict
    found: str
    why: str = ""
    fix: str = ""


def ok(check: str, found: str) -> Result:
    """All is well."""
    return Result(check, Verdict.OK, found)


def warn(check: str, found: str, why: str, fix: str) -> Result:
    """Pods run, but something is or will be wrong."""
    return Result(check, Verdict.WARN, found, why, fix)


def fail(check: str, found: str, why: str, fix: str) -> Result:
    """Pods, or some of them, cannot run."""
    return Result(check, Verdict.FAIL, found, why, fix)


def worst(results: Iterable[Result]) -> Verdict:
    """The verdict over all."""
    return max((result.verdict for result in results), key=lambda each: EXIT[each], default=Verdict.OK)


def document(results: Iterable[Result], version: str) -> dict[str, Any]:
    """The report as `noded check --json` prints it; docs/json.md describes the keys."""
    listed = list(results)
    return {
        "schema": SCHEMA,
        "noded": version,
        "verdict": str(worst(listed)),
        "counts": {str(verdict): sum(result.verdict is verdict for result in listed) for verdict in Verdict},
        "results": [
            {
                "check": result.check,
                "verdict": str(result.verdict),
                "found": result.found,
                "why": result.why,
                "fix": result.fix,
            }
            for result in listed
        ],
    }
