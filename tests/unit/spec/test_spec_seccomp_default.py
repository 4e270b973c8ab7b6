"""The built-in seccomp profile against the kernel's table of calls and its own rules."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noded.spec.capabilities import KNOWN
from noded.spec.seccomp.architectures import ARCHITECTURES
from noded.spec.seccomp.calls import ALLOWED, DENIED, WITH_CAPABILITY
from noded.spec.seccomp.default import default_profile

# x86-64, 32-bit x86 and asm-generic, Linux 6.18
CALLS = frozenset(Path(__file__).with_name("linux_calls.txt").read_text().split())
BY_ARGUMENT = {"clone", "clone3", "unshare", "socket", "personality"}
# numbers without a call behind them: the kernel answers ENOSYS, and so does the profile's default
UNIMPLEMENTED = {
    "afs_syscall", "break", "create_module", "epoll_ctl_old", "epoll_wait_old", "ftime", "get_kernel_syms",
    "getpmsg", "gtty", "idle", "lock", "mpx", "prof", "profil", "putpmsg", "query_module", "security", "stty",
    "tuxcall", "ulimit", "vserver",
}  # fmt: skip
# the asm-generic header's name of a call that libseccomp knows as _llseek
ALIASES = {"llseek"}

masks = st.sets(st.sampled_from(KNOWN))


def action(profile, name, *arguments):
    """What the filter answers, as (action, errno)."""
    found = set()
    for rule in profile["syscalls"]:
        if name in rule["names"] and all(_holds(argument, arguments) for argument in rule.get("args", ())):
            found.add((rule["action"], rule.get("errnoRet")))
    assert len(found) <= 1, f"{name}{arguments}: rules contradict each other: {found}"
    return found.pop() if found else (profile["defaultAction"], profile["defaultErrnoRet"])


def _holds(argument, arguments):
    value = arguments[argument["index"]] if argument["index"] < len(arguments) else 0
    if argument["op"] == "SCMP_CMP_MASKED_EQ":
        return value & argument["value"] == argument["valueTwo"]
    assert argument["op"] == "SCMP_CMP_EQ"
    return value == argument["value"]


ALLOW = ("SCMP_ACT_ALLOW", None)
EPERM = ("SCMP_ACT_ERRNO", 1)
ENOSYS = ("SCMP_ACT_ERRNO", 38)
NOT_A_FAMILY = ("SCMP_ACT_ERRNO", 97)


def test_every_call_of_the_kernel_is_classified():
    classified = {name for group in (*ALLOWED, *WITH_CAPABILITY, *DENIED) for name in group.names}
    assert CALLS - classified - BY_ARGUMENT == UNIMPLEMENTED | ALIASES


def test_every_group_says_why_and_no_call_is_in_two_of_one_machine():
    for machine in ARCHITECTURES:
        seen: set[str] = set()
        for group in (*ALLOWED, *WITH_CAPABILITY, *DENIED):
            assert group.reason
            assert not set(group.names) & BY_ARGUMENT
            if not group.machines or machine in group.machines:
                assert not seen & set(group.names), group.name
                seen |= set(group.names)


@given(masks)
def test_a_call_is_allowed_or_answered_never_fatal(capabilities):
    profile = default_profile("x86_64", capabilities)
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    assert {rule["action"] for rule in profile["syscalls"]} <= {"SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"}
    for name in CALLS:
        action(profile, name)


@given(masks, masks)
def test_more_capabilities_never_take_a_call_away(fewer, more):
    few, many = default_profile("x86_64", fewer), default_profile("x86_64", fewer | more)
    for name in CALLS:
        if action(few, name) == ALLOW:
            assert action(many, name) == ALLOW


@pytest.mark.parametrize(
    "bit", [0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000]
)
def test_a_new_namespace_needs_cap_sys_admin(bit):
    plain, admin = default_profile("x86_64", ()), default_profile("x86_64", ("CAP_SYS_ADMIN",))
    for flags in (bit, bit | 17, bit | 0x40000000, bit | 1 << 50):
        assert action(plain, "clone", flags) == EPERM
        assert action(plain, "unshare", flags) == EPERM
        assert action(admin, "clone", flags) == ALLOW
        assert action(admin, "unshare", flags) == ALLOW
    assert action(plain, "unshare", 0x80) == EPERM
    assert action(plain, "clone", 0x003D0F00) == ALLOW  # flags of pthread_create(3)
    assert action(plain, "clone3") == ENOSYS
    assert action(admin, "clone3") == ALLOW


def test_s390_has_the_flags_of_clone_in_its_second_argument():
    plain = default_profile("s390x", ())
    assert action(plain, "clone", 0, 0x10000000) == EPERM
    assert action(plain, "clone", 0x10000000, 0) == ALLOW
    assert action(plain, "unshare", 0x10000000, 0) == EPERM


@given(st.integers(0, 47), st.integers(0, 2**32 - 1))
def test_only_two_address_families_are_out_whatever_the_high_bits_say(family, high):
    answer = action(default_profile("x86_64", KNOWN), "socket", family | high << 32)
    assert answer == (NOT_A_FAMILY if family in (38, 40) else ALLOW)


def test_only_harmless_personalities_are_in():
    plain = default_profile("x86_64", ())
    for value in (0, 8, 0x20000, 0x20008, 0xFFFFFFFF):
        assert action(plain, "personality", value) == ALLOW
    assert action(plain, "personality", 0x40000) == EPERM
    assert action(plain, "personality", 0x400000) == ENOSYS


@pytest.mark.parametrize(
    ("capability", "calls"),
    [
        ("CAP_SYS_ADMIN", "mount umount2 setns sethostname quotactl bpf perf_event_open syslog fsopen"),
        ("CAP_BPF", "bpf"),
        ("CAP_PERFMON", "perf_event_open"),
        ("CAP_SYSLOG", "syslog"),
        ("CAP_SYS_CHROOT", "chroot"),
        ("CAP_SYS_MODULE", "init_module finit_module delete_module"),
        ("CAP_SYS_PTRACE", "kcmp process_madvise pidfd_getfd"),
        ("CAP_SYS_TIME", "settimeofday clock_settime stime"),
        ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
        ("CAP_SYS_BOOT", "reboot"),
        ("CAP_SYS_RAWIO", "iopl ioperm"),
    ],
)
def test_a_capability_opens_its_calls(capability, calls):
    plain, held = default_profile("x86_64", ()), default_profile("x86_64", (capability,))
    for name in calls.split():
        assert action(plain, name) == EPERM
        assert action(held, name) == ALLOW


def test_some_calls_are_out_for_everybody():
    profile = default_profile("x86_64", KNOWN)
    for name in ("keyctl", "add_key", "io_uring_setup", "kexec_load", "swapon", "userfaultfd", "vmsplice"):
        assert action(profile, name) == EPERM


def test_a_call_that_nobody_knows_is_answered_as_an_older_kernel_would():
    assert action(default_profile("x86_64", KNOWN), "call_of_the_year_2040") == ENOSYS


def test_each_machine_has_its_own_calls_and_sub_architectures():
    x86, arm = default_profile("amd64", ()), default_profile("aarch64", ())
    assert x86["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    assert arm["architectures"] == ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
    assert action(x86, "arch_prctl") == ALLOW
    assert action(arm, "arch_prctl") == ENOSYS
    assert action(arm, "set_tls") == ALLOW
    assert "architectures" not in default_profile("vax", ())
