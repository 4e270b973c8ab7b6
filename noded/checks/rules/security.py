"""Linux security modules."""

from __future__ import annotations

from collections.abc import Iterator

from noded.checks.facts import Facts
from noded.checks.result import Result, ok, warn


def judge(facts: Facts) -> Iterator[Result]:
    """Whether profiles that pods ask for can be enforced; and that the check sees everything."""
    security = facts.security
    if not facts.root_user:
        yield warn(
            "check.user",
            "not run as root",
            "some of the node cannot be seen: mounts are not tried, other users' processes not read",
            "sudo noded check",
        )
    if security.apparmor and not security.apparmor_parser:
        yield warn(
            "security.apparmor",
            "AppArmor is on, but apparmor_parser is missing",
            "profiles of pods cannot be loaded; pods that name one stay pending",
            "apt-get install apparmor",
        )
    elif security.apparmor:
        yield ok("security.apparmor", "AppArmor enforces profiles")
    if security.selinux and not security.selinux_enforcing:
        yield warn(
            "security.selinux",
            "SELinux only reports",
            "nothing is denied; labels of pods are not tested before they matter",
            "setenforce 1",
        )
    elif security.selinux:
        yield ok("security.selinux", "SELinux enforces")
    if not security.apparmor and not security.selinux:
        yield ok("security.modules", ", ".join(security.modules) or "no AppArmor, no SELinux")
