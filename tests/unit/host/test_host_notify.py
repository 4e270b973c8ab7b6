"""The service manager's protocol, against a real datagram socket."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from noded.host.notify import Notifier


def receiver(address: str) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listening.bind(address)
    listening.settimeout(5)
    return listening


def test_ready_reloading_and_stopping_reach_the_manager(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with receiver(address) as manager:
        notifier = Notifier.from_environment({"NOTIFY_SOCKET": address})
        notifier.ready("serving")
        assert manager.recv(4096) == b"READY=1\nSTATUS=serving"
        notifier.reloading()
        reloading, _, clock = manager.recv(4096).decode().partition("\n")
        assert reloading == "RELOADING=1"
        assert int(clock.removeprefix("MONOTONIC_USEC=")) > 0
        notifier.stopping()
        assert manager.recv(4096) == b"STOPPING=1"
        notifier.watchdog()
        assert manager.recv(4096) == b"WATCHDOG=1"
        notifier.extend_timeout(1.5)
        assert manager.recv(4096) == b"EXTEND_TIMEOUT_USEC=1500000"


def test_an_abstract_address_begins_with_an_at_sign() -> None:
    name = f"noded-test-{os.urandom(6).hex()}"
    with receiver("\0" + name) as manager:
        Notifier("@" + name).status("two\nlines")
        assert manager.recv(4096) == b"STATUS=two lines"


def test_without_a_manager_or_with_a_dead_one_nothing_happens(tmp_path: Path) -> None:
    Notifier().ready()
    Notifier(str(tmp_path / "missing")).ready()


def test_the_variables_are_taken_so_that_children_do_not_inherit_them() -> None:
    environment = {
        "NOTIFY_SOCKET": "/x",
        "WATCHDOG_USEC": "10000000",
        "WATCHDOG_PID": str(os.getpid()),
        "A": "b",
    }
    notifier = Notifier.from_environment(environment)
    assert notifier.watchdog_period_seconds == 5.0
    assert environment == {"A": "b"}


def test_a_watchdog_meant_for_another_process_is_not_ours() -> None:
    assert (
        Notifier.from_environment({"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}).watchdog_period_seconds
        is None
    )
    assert Notifier.from_environment({"WATCHDOG_USEC": "x"}).watchdog_period_seconds is None
