"""SIGUSR1: the daemon writes down where its tasks and threads are, and goes on."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from tests.support.processes import wait_for_lines

pytestmark = pytest.mark.root


def test_a_signal_has_the_stacks_written_while_calls_go_on(daemon, cri, busybox):
    config = daemon.pod_config(cri)
    pod = cri.run_pod(config)
    script = "echo >/running; until [ -e /over ]; do usleep 10000; done"
    container = cri.run_container(pod, cri.container_config("main", busybox, ["sleep", "1000"]), config)
    request = cri.pb.ExecSyncRequest(container_id=container, cmd=["sh", "-c", script], timeout=60)
    probe = cri.runtime.ExecSync.future(request, timeout=60)
    cri.exec(container, "sh", "-c", "until [ -e /running ]; do usleep 10000; done", seconds=30)
    os.kill(daemon.pid, signal.SIGUSR1)
    wait_for_lines(daemon.log, "stacks written", 1)
    assert not probe.done()
    cri.exec(container, "touch", "/over")
    assert probe.result(timeout=60).exit_code == 0
    log = daemon.log_text()
    path = Path(re.search(r"stacks written .*path=(\S+)", log)[1])
    assert path.parent == daemon.state
    text = path.read_text()
    op = re.search(r"op=[0-9a-f]{8}", text.partition("asyncio tasks")[0])
    assert op is not None, text
    assert "noded/runtimes/exec.py" in text
    assert "noded/edge/" in text.partition("asyncio tasks")[2]
    # Of the threads also in the log itself, for the time when no loop turns.
    assert "Current thread 0x" in log
    cri.remove_pod(pod)
