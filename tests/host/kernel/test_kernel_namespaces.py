"""Pinned namespaces on the real kernel: own, complete, and gone without a trace."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from noded.errors import FailedPrecondition, InvalidArgument
from noded.host import mounts, namespaces, network_stats, processes, sysctl, userns
from noded.model.pod import IDMapping

pytestmark = pytest.mark.root

KINDS = ("net", "ipc", "uts")
MAPPING = (IDMapping(host_id=300000, container_id=0, length=65536),)


@pytest.fixture
def pins(tmp_path: Path) -> Iterator[dict[str, Path]]:
    """Pin paths that are empty after the test."""
    paths = {kind: tmp_path / "ns" / kind for kind in (*KINDS, "user")}
    yield {kind: paths[kind] for kind in KINDS}
    for path in paths.values():
        namespaces.unpin(path)
    assert mounts.mounts_below(tmp_path) == []


def with_user(pins: dict[str, Path]) -> dict[str, Path]:
    return {**pins, "user": pins["net"].parent / "user"}


def own(kind: str) -> int:
    return os.stat(f"/proc/self/ns/{kind}").st_ino


def lo_is_up() -> bool:
    with socket.socket() as listener, socket.socket() as client:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        try:
            client.connect(listener.getsockname())
        except OSError:
            return False
        return True


def test_pinned_namespaces_are_new_and_set_up_and_this_process_stays_where_it_was(
    pins: dict[str, Path],
) -> None:
    before = {kind: own(kind) for kind in KINDS}
    threads = threading.active_count()
    trio.run(namespaces.pin_namespaces, pins, "pod-name")
    assert {kind: own(kind) for kind in KINDS} == before
    assert threading.active_count() <= threads + 1  # trio keeps a worker; the unsharing thread has ended
    for kind, path in pins.items():
        assert namespaces.namespace_type(path) == kind
        assert namespaces.inode(path) != before[kind]
    assert namespaces.inside(pins, socket.gethostname) == "pod-name"
    assert namespaces.inside(pins, lo_is_up)
    assert namespaces.inside({"net": pins["net"]}, lambda: os.stat("/proc/thread-self/ns/net").st_ino) == (
        namespaces.inode(pins["net"])
    )


def test_pinning_again_changes_nothing(pins: dict[str, Path]) -> None:
    namespaces.pin(pins, "one")
    inodes = {kind: namespaces.inode(path) for kind, path in pins.items()}
    namespaces.pin(pins, "two")
    assert {kind: namespaces.inode(path) for kind, path in pins.items()} == inodes
    assert namespaces.inside(pins, socket.gethostname) == "one"
    assert len(mounts.mounts_below(pins["net"].parent)) == len(KINDS)


def test_a_half_made_set_is_completed(pins: dict[str, Path]) -> None:
    namespaces.pin({"net": pins["net"]}, None)
    net = namespaces.inode(pins["net"])
    namespaces.create_pin_file(pins["uts"])  # as after a kill between file and mount
    namespaces.pin(pins, "late")
    assert namespaces.inode(pins["net"]) == net
    assert namespaces.inside(pins, socket.gethostname) == "late"


def test_without_a_hostname_the_hosts_is_inherited(pins: dict[str, Path]) -> None:
    namespaces.pin(pins, None)
    assert namespaces.inside(pins, socket.gethostname) == socket.gethostname()


def test_unpinning_is_idempotent_and_ends_the_namespace(pins: dict[str, Path]) -> None:
    namespaces.pin(pins, None)
    for path in pins.values():
        namespaces.unpin(path)
        namespaces.unpin(path)
        assert not path.exists()
        assert not namespaces.is_namespace_pin(path)


def test_unpinning_removes_a_file_that_was_never_mounted_but_no_data(pins: dict[str, Path]) -> None:
    namespaces.create_pin_file(pins["net"])
    namespaces.unpin(pins["net"])
    assert not pins["net"].exists()
    pins["net"].write_text("data")
    with pytest.raises(FailedPrecondition, match="is not a namespace pin"):
        namespaces.unpin(pins["net"])
    pins["net"].unlink()


def test_something_else_in_the_place_of_a_pin_is_refused(pins: dict[str, Path]) -> None:
    pins["net"].parent.mkdir()
    pins["net"].symlink_to("/etc/hostname")
    with pytest.raises(FailedPrecondition, match="something else is there"):
        namespaces.pin(pins, None)
    pins["net"].unlink()


def test_a_hostname_the_kernel_refuses_and_a_kind_that_cannot_be_pinned_are_named(
    pins: dict[str, Path],
) -> None:
    with pytest.raises(InvalidArgument, match="hostname"):
        namespaces.pin(pins, "x" * 65)
    with pytest.raises(InvalidArgument, match="'user' cannot be pinned"):
        namespaces.pin(with_user(pins), None)
    assert not pins["net"].exists()


def test_an_error_inside_comes_out(pins: dict[str, Path]) -> None:
    namespaces.pin(pins, None)
    with pytest.raises(ZeroDivisionError):
        namespaces.inside(pins, lambda: 1 // 0)


def test_sysctls_are_set_in_the_pod_and_not_on_the_host(pins: dict[str, Path]) -> None:
    wanted = {
        "net.ipv4.ip_unprivileged_port_start": "79",
        "net/ipv4/conf/lo/forwarding": "1",
        "kernel.shm_rmid_forced": "1",
        "kernel.msgmax": "4097",
        "fs.mqueue.msg_max": "33",
        "kernel.domainname": "pod.example",
    }

    def read() -> list[str]:
        return [Path("/proc/sys", sysctl.canonical_name(name)).read_text().strip() for name in wanted]

    before = read()
    namespaces.pin(pins, "h")
    sysctl.apply(pins, wanted)
    assert namespaces.inside(pins, read) == list(wanted.values())
    assert read() == before


def test_sysctl_values_and_names_that_the_kernel_refuses_are_named(pins: dict[str, Path]) -> None:
    namespaces.pin(pins, None)
    with pytest.raises(
        InvalidArgument, match=r"the kernel refuses net\.ipv4\.ip_unprivileged_port_start='x'"
    ):
        sysctl.apply(pins, {"net.ipv4.ip_unprivileged_port_start": "x"})
    with pytest.raises(FailedPrecondition, match=r"this kernel has no net\.nothing\.here"):
        sysctl.apply(pins, {"net.nothing.here": "1"})


def test_the_user_namespace_owns_the_others(pins: dict[str, Path]) -> None:
    pins = with_user(pins)
    trio.run(userns.pin_with_user_namespace, pins, "pod", MAPPING, MAPPING)
    assert userns.is_complete(pins)
    assert namespaces.namespace_type(pins["user"]) == "user"
    entered = {kind: pins[kind] for kind in KINDS}
    assert namespaces.inside(entered, socket.gethostname) == "pod"
    assert namespaces.inside(entered, lo_is_up)


def test_sysctls_work_also_where_a_user_namespace_owns_them(pins: dict[str, Path]) -> None:
    pins = with_user(pins)
    trio.run(userns.pin_with_user_namespace, pins, "pod", MAPPING, MAPPING)
    wanted = {
        "net.ipv4.ip_unprivileged_port_start": "0",
        "kernel.shm_rmid_forced": "1",
        "kernel.msgmax": "4097",
        "kernel.sem": "32000\t1024000000\t500\t31999",
        "kernel.domainname": "pod.example",
    }
    sysctl.apply(pins, wanted)

    def read() -> list[str]:
        return [Path("/proc/sys", sysctl.canonical_name(name)).read_text().strip() for name in wanted]

    assert namespaces.inside({kind: pins[kind] for kind in KINDS}, read) == list(wanted.values())
    assert os.geteuid() == 0


def test_a_half_made_set_with_a_user_namespace_is_replaced(pins: dict[str, Path]) -> None:
    namespaces.pin({"net": pins["net"]}, None)
    stray = namespaces.inode(pins["net"])
    pins = with_user(pins)
    trio.run(userns.pin_with_user_namespace, pins, None, MAPPING, MAPPING)
    assert userns.is_complete(pins)
    assert namespaces.inode(pins["net"]) != stray
    inodes = {kind: namespaces.inode(path) for kind, path in pins.items()}
    trio.run(userns.pin_with_user_namespace, pins, None, MAPPING, MAPPING)
    assert {kind: namespaces.inode(path) for kind, path in pins.items()} == inodes


def test_no_process_outlives_the_making_of_a_user_namespace() -> None:
    children = processes.children_of(os.getpid())
    before = set(os.listdir("/proc/self/fd"))
    with userns.open_mapped_userns(MAPPING, MAPPING) as fd:
        assert os.readlink(f"/proc/self/fd/{fd}").startswith("user:[")
    assert set(os.listdir("/proc/self/fd")) == before
    assert processes.children_of(os.getpid()) <= children


def test_interface_counters_are_those_of_the_pod(pins: dict[str, Path]) -> None:
    namespaces.pin(pins, None)
    namespaces.inside(pins, lo_is_up)
    devices = {device.name: device for device in network_stats.read_interfaces(pins["net"])}
    assert devices["lo"].rx_packets > 0
    assert "eth0" not in devices
