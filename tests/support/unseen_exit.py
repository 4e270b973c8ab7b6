"""A container that ends while no daemon sees it."""

from __future__ import annotations

import json
import os
import select
import time
from pathlib import Path

from tests.support.cri_client import Cri
from tests.support.daemon import NodedDaemon

_CODE = 42
_SLACK_NS = 10**9  # the clocks of monitors and of the kernel's time stamps differ from ours


def assert_told_truly(daemon: NodedDaemon, cri: Cri, image: str, handler: str, directory: Path) -> None:
    """Let one end between the kill of a daemon and the start of the next, which must tell code and time.

    Args:
        image: with a shell.
        directory: for the fifo that lets the container end.
    """
    gate = directory / "gate"
    os.mkfifo(gate)
    config = daemon.pod_config(cri)
    pod = cri.run_pod(config, handler)
    command = ["/bin/sh", "-c", f"read line </gate/gate; exit {_CODE}"]
    main = cri.container_config("main", image, command, mounts=[(directory, "/gate")])
    container = cri.run_container(pod, main, config)
    process = os.pidfd_open(json.loads(cri.verbose_status(container).info["info"])["pid"])
    daemon.kill()
    released_ns = time.time_ns()
    gate.write_text("go\n")
    assert select.select([process], [], [], 10)[0]
    os.close(process)
    ended_ns = time.time_ns()
    daemon.start()
    status = cri.wait_exited(container)
    assert status.exit_code == _CODE
    assert released_ns - _SLACK_NS <= status.finished_at <= ended_ns + _SLACK_NS
