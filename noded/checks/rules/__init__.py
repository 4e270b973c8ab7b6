"""The rules of `noded check`: pure functions from facts to results, in the order of the report."""

from __future__ import annotations

from noded.checks.facts import Facts
from noded.checks.result import Result
from noded.checks.rules import (
    cgroups,
    documents,
    kernel,
    kubelet,
    limits,
    network,
    node,
    runtimes,
    security,
    storage,
)

SUBJECTS = (kernel, cgroups, storage, security, runtimes, network, documents, limits, kubelet, node)


def judge(facts: Facts) -> list[Result]:
    """Everything that can be said about a node."""
    return [result for subject in SUBJECTS for result in subject.judge(facts)]
