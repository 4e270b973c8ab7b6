from __future__ import annotations

import fcntl
import os

import pytest
import trio
import trio.testing

from noded.network.hostlocal import free_lost_addresses


@pytest.fixture
def leases(tmp_path):
    """What host-local keeps, with two addresses that were reserved for nobody."""
    directory = tmp_path / "podnet"
    directory.mkdir()
    (directory / "lock").touch()
    (directory / "last_reserved_ip.0").touch()
    (directory / "notes").touch()
    (directory / "10.1.2.2").write_text("abc\r\neth0")
    (directory / "10.1.2.3").touch()
    (directory / "fd00::3").touch()
    (directory / "10.1.2.4").symlink_to("notes")
    return directory


def document(tmp_path, **ipam):
    ipam = {"type": "host-local", "dataDir": str(tmp_path), **ipam}
    return {"name": "podnet", "plugins": [{"type": "portmap"}, {"type": "bridge", "ipam": ipam}]}


LOST = {"10.1.2.3", "fd00::3"}


def test_addresses_reserved_for_nobody_are_freed_and_no_others(tmp_path, leases):
    before = set(os.listdir(leases))
    trio.run(free_lost_addresses, document(tmp_path))
    assert before - set(os.listdir(leases)) == LOST


def test_while_host_local_holds_its_lock_nothing_is_touched(tmp_path, leases):
    """An empty file may then be a reservation in the making."""

    async def main():
        lock = os.open(leases / "lock", os.O_RDWR)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(free_lost_addresses, document(tmp_path))
                await trio.testing.wait_all_tasks_blocked(0.05)
                assert set(os.listdir(leases)) >= LOST
                (leases / "10.1.2.3").write_text("def\r\neth0")
                fcntl.flock(lock, fcntl.LOCK_UN)
        finally:
            os.close(lock)
        assert (leases / "10.1.2.3").exists()
        assert not (leases / "fd00::3").exists()

    trio.run(main)


@pytest.mark.parametrize(
    "ipam", [{"type": "dhcp"}, {"dataDir": "relative"}, {"dataDir": 7}, {"dataDir": "/no/such"}]
)
def test_other_address_management_is_left_alone(tmp_path, leases, ipam):
    before = set(os.listdir(leases))
    trio.run(free_lost_addresses, document(tmp_path, **ipam))
    assert set(os.listdir(leases)) == before
