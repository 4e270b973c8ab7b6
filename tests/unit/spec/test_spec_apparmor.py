"""The default AppArmor profile, read as apparmor.d(5) reads it."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from noded.errors import InvalidArgument
from noded.spec.apparmor import NAME, all_but, default_profile

NAMES = st.text("abc/-_0", min_size=1, max_size=6)


def matches(glob: str, path: str) -> bool:
    """apparmor.d(5), the part in use: `*` is all but /, `**` is all, [^...] one character."""
    wildcards = {"**": ".*", "*": "[^/]*"}
    parts = re.split(r"(\[\^[^]]*\]|\*\*|\*)", glob)
    pattern = "".join(
        part if part.startswith("[^") else wildcards.get(part, re.escape(part)) for part in parts
    )
    return re.fullmatch(pattern, path, re.DOTALL) is not None


def denied(path: str, access: str) -> bool:
    rules = re.findall(r"^  deny (/\S+) ([a-z]+),$", default_profile(), re.MULTILINE)
    return any(access in accesses and matches(glob, path) for glob, accesses in rules)


@example(["a", "a_"], "a0")
@given(st.lists(NAMES, min_size=1, max_size=4), NAMES)
def test_all_but_matches_exactly_what_has_no_allowed_prefix(allowed: list[str], text: str) -> None:
    matched = any(matches(glob, text) for glob in all_but(allowed))
    beginning = any(prefix.startswith(text) for prefix in allowed)
    assert matched == (not text.startswith(tuple(allowed)) and not beginning)


@pytest.mark.parametrize(
    "path",
    [
        "/proc/sysrq-trigger", "/proc/kcore", "/proc/acpi/wakeup", "/proc/irq/3/smp_affinity",
        "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/kernel/sysrq",
        "/proc/sys/vm/overcommit_memory", "/proc/sys/fs/binfmt_misc/register", "/proc/sys/fs/suid_dumpable",
        "/sys/kernel/uevent_helper", "/sys/fs/bpf/x", "/sys/firmware/efi/vars/x", "/sys/power/state",
    ],
)  # fmt: skip
def test_what_controls_the_node_cannot_be_written(path: str) -> None:
    assert denied(path, "w")


@pytest.mark.parametrize(
    "path",
    [
        "/proc/1/oom_score_adj", "/proc/self/attr/current", "/proc/thread-self/comm", "/proc/42/task/43/comm",
        "/proc/sys/net/ipv4/ip_forward", "/proc/sys/kernel/shmmax", "/proc/sys/kernel/msgmax",
        "/proc/sys/kernel/sem", "/proc/sys/fs/mqueue/msg_max", "/sys/fs/cgroup/cgroup.procs", "/etc/passwd",
        "/tmp/proc/x", "/dev/null",
    ],
)  # fmt: skip
def test_what_belongs_to_the_container_can_be_written(path: str) -> None:
    assert not denied(path, "w")


def test_secrets_of_kernel_and_firmware_cannot_even_be_read() -> None:
    assert denied("/proc/kcore", "r")
    assert denied("/sys/firmware/acpi/tables/DSDT", "r")
    assert denied("/sys/devices/virtual/powercap/intel-rapl/energy_uj", "r")
    assert not denied("/proc/meminfo", "r")
    assert not denied("/sys/class/net/eth0/address", "r")


def test_mounting_is_denied_and_managers_may_signal() -> None:
    source = default_profile(managers=("noded.service", "", "a label with spaces"))
    assert "  deny mount,\n" in source
    assert "  signal (receive) peer=noded.service,\n" in source
    assert "spaces" not in source
    assert source.startswith(f"profile {NAME} ")


def test_a_name_that_would_break_the_syntax_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="only letters"):
        default_profile("x { capability, }")
