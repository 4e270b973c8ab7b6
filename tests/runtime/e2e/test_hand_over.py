"""A restart under a service manager that holds the socket: no client is ever refused a connection."""

from __future__ import annotations

import os
import socket
import sys
import threading
from pathlib import Path

import pytest

from tests.support.daemon import NodedDaemon

pytestmark = pytest.mark.root

RESTARTS = 3
LISTEN_FD = 3  # SD_LISTEN_FDS_START
BACKLOG = 4096  # systemd's default
_PASS_ON = f"""
import os, sys
os.dup2(int(sys.argv[1]), {LISTEN_FD})
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.argv[2], sys.argv[2:])
"""


class ActivatedDaemon(NodedDaemon):
    """A noded that gets its socket as systemd passes it: as descriptor 3, with LISTEN_PID its pid."""

    def prepare(self) -> None:
        super().prepare()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self.socket))
        self._listener.listen(BACKLOG)
        os.set_inheritable(self._listener.fileno(), True)

    def command(self) -> list[str]:
        return [sys.executable, "-c", _PASS_ON, str(self._listener.fileno()), *super().command()]

    @property
    def passed(self) -> tuple[int, ...]:
        return (self._listener.fileno(),)

    def close(self) -> None:
        super().close()
        self._listener.close()


def test_no_connection_is_refused_while_noded_is_replaced(tmp_path: Path):
    """Connections and calls made while it is away wait, and are answered by its successor."""
    with ActivatedDaemon(tmp_path) as daemon:
        over, refusals, connected = threading.Event(), [], []

        def connect() -> None:
            while not over.is_set():
                with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
                    try:
                        client.connect(str(daemon.socket))
                        connected.append(daemon.running)
                    except OSError as error:
                        refusals.append(error)
                over.wait(0.002)

        with daemon.client() as cri:
            pod = cri.run_pod(daemon.pod_config(cri))
        thread = threading.Thread(target=connect)
        thread.start()
        try:
            for _ in range(RESTARTS):
                assert daemon.stop() == 0
                with daemon.client() as early:  # its first call is made while nobody is there
                    request = early.pb.ListPodSandboxRequest()
                    call = early.runtime.ListPodSandbox.future(request, timeout=30)
                    daemon.start()
                    assert [one.id for one in call.result().items] == [pod]
        finally:
            over.set()
            thread.join()
        assert not refusals
        assert not all(connected), "no connection was made while noded was away"
        with daemon.client() as cri:
            cri.remove_pod(pod)
