"""A daemon with its client, its oracle and a loaded image, used and restarted by one test after another."""

from __future__ import annotations

import json
import select
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc

from tests.crash.faults import FaultyDaemon
from tests.support.cri_client import Cri
from tests.support.oracle import Facets, Oracle

IMAGE = "crash.example/busybox:1"
HANDLERS = ("runc", "crun")
SETTLE_SECONDS = 20.0
EXECUTED_SECONDS = 10.0
NOBODY = "0" * 64


class World:
    """Entering starts the daemon and makes what only the first pods make (the bridge, directories)."""

    def __init__(self, daemon: FaultyDaemon, layout: Path) -> None:
        self.daemon = daemon
        self.oracle = Oracle(daemon)
        self._layout = layout
        self._stack = ExitStack()
        self.cri: Cri

    def __enter__(self) -> World:
        self._stack.enter_context(self.daemon)
        try:
            self.cri = self._stack.enter_context(self.daemon.client())
            self.cri.load(self._layout)
            for handler in HANDLERS:
                self.cri.remove_pod(self.pod(handler)[0])
            self.daemon.kill()
            self.restarted()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def restarted(self) -> None:
        """Start the dead daemon and wait until it has brought the node in order."""
        self.daemon.wait_dead()
        self.daemon.start()
        self.settled()

    def settled(self) -> None:
        """Changes are answered once the daemon has looked at the node."""
        try:
            self.cri.stop(NOBODY)
        except grpc.RpcError as error:
            # A client may learn only now that its connection was to a daemon that is dead.
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            self.cri.stop(NOBODY)

    def pod(self, handler: str = "runc", **options: Any) -> tuple[str, Any]:
        """Run a pod whose init process holds its PID namespace; return its id and configuration."""
        config = self.daemon.pod_config(self.cri, pid="POD", **options)
        pod = self.cri.run_pod(config, handler)
        self._wait_executed(int(json.loads(self.cri.pod_status(pod, verbose=True).info["info"])["pid"]))
        return pod, config

    def _wait_executed(self, pid: int) -> None:
        """A runtime's start returns while init still becomes its program, of whose end nothing tells."""
        deadline = time.monotonic() + EXECUTED_SECONDS
        while not Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"/init"):
            assert time.monotonic() < deadline, f"process {pid} is no init yet"
            select.select([], [], [], 0.001)

    def main(self, name: str = "main", *command: str, **options: Any) -> Any:
        """The configuration of a container for such a pod."""
        return self.cri.container_config(name, IMAGE, command or ("sleep", "10000"), pid="POD", **options)

    def assert_unchanged(self, before: Facets) -> None:
        self.oracle.assert_unchanged(before, SETTLE_SECONDS)
