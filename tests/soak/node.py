"""The node that a soak plays with: the running noded, what it must look like, and what was done to it."""

from __future__ import annotations

import re
import select
import sqlite3
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc

from tests.crash.programs import Stand
from tests.crash.world import World
from tests.soak.model import NodeModel
from tests.soak.steps import Step
from tests.support.oracle import copy_database

CALL_SECONDS = 60.0
CONVERGE_SECONDS = 45.0
NOBODY = "0" * 64
Code = grpc.StatusCode
NETWORK_CODES = {Code.UNAVAILABLE, Code.FAILED_PRECONDITION, Code.DEADLINE_EXCEEDED}


class Refused(AssertionError):
    """The daemon answered otherwise than it must."""


class Node:
    """What the steps of all kinds share.

    Args:
        bridge: stands before the CNI plugin.
        second: an OCI layout with another image.
    """

    def __init__(self, world: World, bridge: Stand, second: Path) -> None:
        self.world = world
        self.bridge = bridge
        self.second = second
        self.disk = world.daemon.disk
        self.model = NodeModel.empty()
        self.codes: Counter[str] = Counter()
        self.away, self.back = threading.Event(), threading.Event()
        self.lives = 0
        # Containers whose create was cancelled, perhaps when it was just complete: pod, name, attempt.
        self.fleeting: set[tuple[str, str, int]] = set()
        self.forgotten: set[tuple[str, str, int]] = set()  # of them, those that an earlier noded made
        # The same of pods: uid, attempt. What a noded that died was taking back, the next one shows going.
        self.given_up: set[tuple[str, int]] = set()
        self.ghosts: set[tuple[str, int]] = set()

    def call(
        self, method: Any, request: Any, *, seconds: float = CALL_SECONDS
    ) -> tuple[Code, str, Any, bool]:
        """Code, message and answer; repeated while noded is away. The last: whether an answer was lost."""
        lost = False
        while True:
            life = self.lives
            try:
                answer = method(request, timeout=seconds, wait_for_ready=True)
                self.codes["OK"] += 1
                return Code.OK, "", answer, lost
            except grpc.RpcError as error:
                if error.code() is Code.UNAVAILABLE and (self.away.is_set() or life != self.lives):
                    lost = True
                    assert self.back.wait(CALL_SECONDS), "noded did not come back"
                    continue
                self.codes[error.code().name] += 1
                return error.code(), str(error.details()), None, lost

    def expect(self, step: Step, code: Code, message: str, allowed: set[Code]) -> None:
        if code not in allowed:
            names = ", ".join(sorted(one.name for one in allowed))
            raise Refused(f"{step}: {code.name} ({message}), expected {names}")

    def pods(self) -> list[Any]:
        """The pods that are listed, but for those that are going and no client was told of."""
        cri = self.world.cri  # which may be away: this is asked for in the middle of a crash, too
        code, message, answer, _ = self.call(cri.runtime.ListPodSandbox, cri.pb.ListPodSandboxRequest())
        assert code is Code.OK, message
        ready = cri.pb.SANDBOX_READY
        return [
            one
            for one in answer.items
            if one.state == ready or (one.metadata.uid, one.metadata.attempt) not in self.ghosts
        ]

    def was_answered(self, pod: str, log_at: int) -> bool:
        """Whether noded has sent the id of a pod to its client, as its log says from there on."""
        with self.world.daemon.log.open("rb") as log:
            log.seek(log_at)
            lines = log.read().decode(errors="replace").splitlines()
        made = next((line for line in lines if "pod sandbox ready" in line and f"id={pod}" in line), "")
        operation = re.search(r"\bop=(\w+)", made)
        return operation is not None and any(
            " rpc " in line and "code=OK" in line and operation[0] in line for line in lines
        )

    def undone(self) -> bool:
        """Whether of the pods whose create was cancelled none is on its way down any more."""
        with (
            tempfile.TemporaryDirectory() as directory,
            closing(
                sqlite3.connect(copy_database(self.world.daemon.root / "noded.db", Path(directory)))
            ) as rows,
        ):
            found = rows.execute("SELECT uid, attempt FROM sandboxes WHERE intent != 'ready'").fetchall()
        return self.given_up.isdisjoint(found)

    def settled(self) -> None:
        """Every cancel of a client has reached the core, and noded has looked at the node."""
        cri = self.world.cri
        self.call(cri.runtime.StopPodSandbox, cri.pb.StopPodSandboxRequest(pod_sandbox_id=NOBODY))

    def until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + CONVERGE_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                raise Refused(f"not within {CONVERGE_SECONDS:g} s: {what}")
            select.select([], [], [], 0.02)
