"""What each handler cannot pass of the conformance suite, and why; everything else has to pass.

A line that no longer applies fails the test as much as one that is missing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.conformance.suite import Spec


@dataclass(frozen=True)
class Node:
    """What decides about lines of the tables."""

    apparmor: bool
    user_namespaces: bool  # whether the handler has them here

    @staticmethod
    def look(user_namespaces: bool) -> Node:
        enabled = Path("/sys/module/apparmor/parameters/enabled")
        apparmor = enabled.exists() and enabled.read_text().startswith("Y")
        return Node(apparmor, user_namespaces)


@dataclass(frozen=True)
class Line:
    """`count` specs whose names match `pattern` end as `status`, for `reason`."""

    pattern: str
    status: str  # failed or skipped
    count: int
    reason: str
    said: str = ""  # what the suite's message must hold


def table(handler: str, node: Node) -> tuple[Line, ...]:
    """The expected differences of a handler on this node."""
    lines = [
        Line("benchmark", "skipped", 5, "the suite runs them by another option only"),
        Line(
            "public image with digest should be pulled and removed",
            "failed",
            1,
            "it pins the digest of an image that only the public registry has",
            "test-image-digest@sha256:",
        ),
        Line(
            "runtime should support MaskedPaths",
            "failed",
            1,
            "it compares the refusal word by word with that of another shell than the image has",
            "ls: Permission denied",
        ),
    ]
    if not node.apparmor:
        lines.append(Line("AppArmor", "skipped", 9, "the kernel has no AppArmor"))
    if not node.user_namespaces:
        lines.append(
            Line(
                "UserNamespaces",
                "skipped",
                6,
                f"the installed {handler} cannot map the files of a pod in a user namespace",
            )
        )
    return (*lines, *_OWN.get(handler, ()))


def differences(specs: Iterable[Spec], lines: Iterable[Line]) -> list[str]:
    """What is not as the table says, one sentence each; empty = as expected."""
    lines = tuple(lines)
    found: Counter[Line] = Counter()
    result = []
    for spec in specs:
        if spec.status == "passed":
            continue
        line = next((one for one in lines if re.search(one.pattern, spec.name)), None)
        if line is None or line.status != spec.status or line.said not in spec.message:
            result.append(f"{spec.status}: {spec.name}: {' '.join(spec.message.split())[:300]}")
        else:
            found[line] += 1
    result += [
        f"{found[line]} specs {line.status}, {line.count} are expected: {line.pattern}: {line.reason}"
        for line in lines
        if found[line] != line.count
    ]
    return result


_OWN: dict[str, tuple[Line, ...]] = {}
