"""Small parsers and rules of noded.host that need no kernel."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noded.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable
from noded.host import facts, inotify, libc, lsm, network_stats, processes, sysctl, userns
from noded.model.host import CgroupDriver
from noded.model.pod import IDMapping


def test_an_errno_becomes_the_class_that_says_what_to_do() -> None:
    assert isinstance(libc.kernel_error(16, "cannot unmount /x"), Unavailable)
    assert isinstance(libc.kernel_error(2, "x"), NotFound)
    assert (
        str(libc.kernel_error(16, "cannot unmount /x"))
        == "cannot unmount /x: Device or resource busy (EBUSY)"
    )
    assert "(99999)" in str(libc.kernel_error(99999, "x"))


@given(
    st.text(st.characters(codec="utf-8", exclude_characters="\n")),
    st.sampled_from("RSDZTtXI"),
    st.integers(0, 2**22),
    st.integers(0, 2**63),
)
def test_a_process_name_cannot_confuse_the_status(name: str, state: str, parent: int, started: int) -> None:
    text = f"1 ({name}) {state} {parent} " + "0 " * 17 + f"{started} 5 6 7\n"
    assert processes.parse_stat(text) == (state, parent, started)


def test_an_option_of_a_command_is_found_only_with_a_word_behind_it() -> None:
    words = [b"conmon", b"--cid", b"--exit-dir", b"/x", b"--cid"]
    assert processes.argument_of(words, b"--cid") == b"--exit-dir"
    assert processes.argument_of(words, b"--exit-dir") == b"/x"
    assert processes.argument_of(words[1:2], b"--cid") is None
    assert processes.argument_of(words, b"-id") is None


def test_a_cut_status_is_refused() -> None:
    with pytest.raises(ValueError, match="not a process status"):
        processes.parse_stat("1 (a) S 2 3")


def test_capability_bits_become_names_and_unknown_ones_are_left_out() -> None:
    assert processes.parse_capabilities(0b1 | 1 << 21 | 1 << 40 | 1 << 60) == {
        "CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_CHECKPOINT_RESTORE",
    }  # fmt: skip
    assert len(processes.CAPABILITIES) == 41


event = st.tuples(st.integers(-1, 2**31 - 1), st.integers(0, 2**32 - 1), st.binary(max_size=40).map(
    lambda name: name.replace(b"\0", b""))
)  # fmt: skip


@given(st.lists(event, max_size=5), st.integers(0, 3))
def test_inotify_events_are_read_exactly(events: list[tuple[int, int, bytes]], padding: int) -> None:
    data = b"".join(
        struct.pack("iIII", wd, mask, 0, len(name) + padding) + name + b"\0" * padding
        for wd, mask, name in events
    )
    parsed = inotify.parse_events(data)
    assert [(e.wd, e.mask, e.name.encode(errors="surrogateescape")) for e in parsed] == events


@given(st.binary(max_size=64))
def test_arbitrary_inotify_bytes_are_parsed_or_refused(data: bytes) -> None:
    with suppress(ValueError):
        assert all(event.name.isascii() or event.name for event in inotify.parse_events(data))


NET_DEV = """Inter-|   Receive                            |  Transmit
 face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed
    lo:     100       2    0    0    0     0          0         0      100       2    0    0    0     0    0   0
eth0:1:1296 9 1 2 0 0 0 0 648 8 3 4 0 0 0 0
"""  # noqa: E501 - as the kernel writes it


def test_device_counters_are_read_also_for_names_with_colons() -> None:
    lo, eth = network_stats.parse_net_dev(NET_DEV)
    assert (lo.name, lo.rx_bytes, lo.tx_packets) == ("lo", 100, 2)
    assert eth == network_stats.InterfaceStats("eth0:1", 1296, 9, 1, 2, 648, 8, 3, 4)


def test_apparmor_profiles_may_have_spaces() -> None:
    assert lsm.parse_apparmor_profiles("/usr/bin/a b (enforce)\nc//d (complain)\n") == {
        "/usr/bin/a b",
        "c//d",
    }


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("net.ipv4.ip_forward", "net"),
        ("net/ipv4/conf/eth0.100/forwarding", "net"),
        ("net.ipv4.conf.eth0/100.forwarding", "net"),
        ("kernel.shmmax", "ipc"),
        ("kernel.shm_rmid_forced", "ipc"),
        ("kernel/msgmnb", "ipc"),
        ("kernel.sem", "ipc"),
        ("fs.mqueue.msg_max", "ipc"),
        ("kernel.hostname", "uts"),
        ("kernel.domainname", "uts"),
        ("kernel.shmmaxx", None),
        ("kernel.core_pattern", None),
        ("vm.swappiness", None),
        ("fs.mqueue", None),
    ],
)
def test_a_sysctl_belongs_to_its_namespace(name: str, kind: str | None) -> None:
    assert sysctl.namespace_of(name) == kind


def test_the_first_separator_decides_what_a_dot_means() -> None:
    assert sysctl.canonical_name("net.ipv4.conf.eth0/100.forwarding") == "net/ipv4/conf/eth0.100/forwarding"
    assert sysctl.canonical_name("net/ipv4/conf/eth0.100/forwarding") == "net/ipv4/conf/eth0.100/forwarding"


@given(st.text(max_size=40))
def test_no_sysctl_name_leaves_proc_sys(name: str) -> None:
    try:
        path = sysctl.canonical_name(name)
    except InvalidArgument:
        return
    assert not path.startswith("/")
    assert ".." not in path.split("/")


def test_a_sysctl_of_the_node_or_of_a_shared_namespace_is_refused_before_any_is_written() -> None:
    with pytest.raises(InvalidArgument, match=r"vm\.swappiness is not namespaced"):
        sysctl.check(frozenset({"net"}), {"net.ipv4.ip_forward": "1", "vm.swappiness": "1"})
    with pytest.raises(InvalidArgument, match="needs the pod's own net namespace"):
        sysctl.check(frozenset({"ipc"}), {"net.ipv4.ip_forward": "1"})


def test_mappings_are_written_container_first() -> None:
    mapping = [IDMapping(host_id=100000, container_id=0, length=65536)]
    assert userns.format_id_map(mapping, "uids") == "0 100000 65536\n"


@pytest.mark.parametrize(
    "mappings",
    [
        [],
        [IDMapping(1, 0, 0)],
        [IDMapping(-1, 0, 1)],
        [IDMapping(0, 0, 2**32)],
        [IDMapping(1000, 0, 10), IDMapping(1005, 20, 10)],
        [IDMapping(1000, 0, 10), IDMapping(5000, 9, 10)],
        [IDMapping(n, n, 1) for n in range(341)],
    ],
)
def test_mappings_that_the_kernel_would_refuse_name_the_field(mappings: list[IDMapping]) -> None:
    with pytest.raises(InvalidArgument, match=r"^userns_options\.uids: "):
        userns.format_id_map(mappings, "userns_options.uids")


def test_the_cgroup_driver_follows_systemd_unless_it_is_set() -> None:
    assert facts.choose_driver("auto", systemd=True) is CgroupDriver.SYSTEMD
    assert facts.choose_driver("auto", systemd=False) is CgroupDriver.CGROUPFS
    assert facts.choose_driver("cgroupfs", systemd=True) is CgroupDriver.CGROUPFS
    with pytest.raises(InvalidArgument, match="cgroup_driver: systemd is asked for"):
        facts.choose_driver("systemd", systemd=False)
    with pytest.raises(InvalidArgument, match="cgroup_driver: 'x' is none of"):
        facts.choose_driver("x", systemd=False)


def test_kernel_versions_are_read_from_any_release() -> None:
    assert facts.parse_kernel_release("6.18.44-fc") == (6, 18)
    assert facts.parse_kernel_release("5.10-rc1+") == (5, 10)
    assert facts.parse_kernel_release("odd") == (0, 0)


def test_a_hidden_error_class_is_not_lost() -> None:
    assert isinstance(libc.kernel_error(22, "x"), FailedPrecondition)
