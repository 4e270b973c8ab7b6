"""What irqbalance is told, and by a stand-in that answers as irqbalance 1.9 does."""

from __future__ import annotations

import socket
import struct
import threading

import pytest

from noded.host import irqbalance
from noded.host.cpu_tuning import CpuTuner
from noded.model.cpus import parse_cpus
from noded.spec.cpu_tuning import TuningPlan


class StandIn:
    """Answers `setup` with a mask, and remembers settings."""

    def __init__(self, path, mask):
        self.mask, self.told, self.users = mask, [], set()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self):
        while True:
            connection, _ = self._listener.accept()
            with connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
                data, ancillary, _, _ = connection.recvmsg(8192, socket.CMSG_SPACE(12))
                self.users |= {struct.unpack("iII", content)[1] for *_, content in ancillary}
                if data == b"end":
                    return
                if data == b"setup":
                    connection.sendall(f"SLEEP 10 IRQ 24 LOAD 1 DIFF 1 CLASS 0 BANNED {self.mask}".encode())
                else:
                    self.told.append(data.decode())

    def close(self, path):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(str(path))
            connection.sendall(b"end")
        self._thread.join(10)
        self._listener.close()


@pytest.fixture
def running(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    directory = tmp_path / "run/irqbalance"
    directory.mkdir(parents=True)
    path = directory / "irqbalance7.sock"
    if len(str(path)) > 100:
        pytest.skip("the temporary directory has too long a path for a socket")
    stand_in = StandIn(path, "00000000,00000008")
    yield directory, stand_in
    stand_in.close(path)


def test_cpus_are_banned_beside_those_that_are_already(running):
    directory, stand_in = running
    irqbalance.ban(directory, {1, 2})
    irqbalance.allow(directory, {1, 2}, {2})
    irqbalance.allow(directory, {2, 3}, set())
    assert stand_in.told == ["settings cpus 1-3", "settings cpus 2-3", "settings cpus NULL"]
    assert irqbalance.banned(directory) == {3}


def test_an_irqbalance_that_has_ended_or_never_ran_is_passed_over(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left:
        left.bind(str(tmp_path / "irqbalance1.sock"))
    irqbalance.ban(tmp_path, {1})
    irqbalance.ban(tmp_path / "absent", {1})
    assert irqbalance.banned(tmp_path) == frozenset()


def test_the_quiet_cpus_of_all_containers_are_told(running, tmp_path):
    _, stand_in = running
    (tmp_path / "proc/irq").mkdir(parents=True)
    (tmp_path / "proc/irq/default_smp_affinity").write_text("ff\n")
    (tmp_path / "sys/devices/system/cpu").mkdir(parents=True)
    (tmp_path / "sys/devices/system/cpu/possible").write_text("0-7\n")
    tuner = CpuTuner(tmp_path)
    for name, cpus in (("one", "1"), ("two", "4-5")):
        tuner.apply(TuningPlan((), parse_cpus(cpus, "cpus")), tmp_path / name)
    tuner.undo(tmp_path / "one")
    tuner.undo(tmp_path / "two")
    banned = [text.removeprefix("settings cpus ") for text in stand_in.told]
    assert banned == ["1,3", "1,3-5", "3-5", "3"]
