"""What each handler cannot pass of the conformance suite, and why; everything else has to pass.

A line that no longer applies fails the test as much as one that is missing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
    return (*lines, *(_GVISOR if handler == "runsc" else ()))


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


# Seen with release 20221219 of Debian 12; a newer one may need fewer lines.
_GVISOR = (
    Line("Container OOM", "failed", 1, "the memory is the sentry's: no container is killed for its own"),
    Line(
        "adding volume and device", "failed", 2, "its statx fails for bind mounts, as ls calls it", "Invalid"
    ),
    Line("Image Volume", "skipped", 2, "the same statx: the suite takes the mount for missing"),
    Line("should support sysctls", "failed", 2, "its kernel has no such sysctls", "can't open '/proc/sys/"),
    Line("Mount Propagation.*rshared", "failed", 1, "it takes private or slave roots only", "must specify"),
    Line(
        "Mount Propagation", "failed", 2, "the same statx, of the mount that is looked for", "cannot access"
    ),
    Line("non-recursive readonly", "failed", 1, "a read-only mount covers those below it", "Read-only file"),
    Line("recursive readonly mount", "skipped", 4, "it does not announce recursive read-only mounts"),
    Line("HostIpc is true", "failed", 1, "its kernel has IPC objects of its own"),
    Line("support PodPID", "failed", 1, "each container sees its own processes only"),
    Line("HostNetwork is true", "failed", 1, "its /proc/net shows its own sockets, not the host's"),
    Line(
        "(adding|dropping) capability|Privileged is true",
        "failed",
        3,
        "it has neither bridges nor raw sockets, whatever the capabilities",
    ),
    Line(
        "(Masked|Readonly)Paths",
        "failed",
        2,
        "it ignores both: those of the runtime default lead to its own kernel",
    ),
    Line(
        "SeccompProfilePath.*(localhost profile on the|default on the|setting hostname with)",
        "failed",
        3,
        "it filters no calls of the containers, which never reach the host's kernel",
    ),
    Line("allow privilege escalation when false", "failed", 1, "its set-uid programs gain nothing"),
    Line("listing pod sandbox metrics", "failed", 1, "it tells no resident memory and no swap"),
)
