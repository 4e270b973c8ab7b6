"""What the node must look like: a few pods and containers with all the states that they may be in."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

from tests.soak.steps import CONTAINERS, PODS

ABSENT = "absent"
READY, NOT_READY = "SANDBOX_READY", "SANDBOX_NOTREADY"
CREATED, RUNNING, EXITED = "CONTAINER_CREATED", "CONTAINER_RUNNING", "CONTAINER_EXITED"


@dataclass
class ContainerModel:
    """One container slot.

    Args:
        may_be: the states it may be in; the first look at the node leaves one of them.
        codes: the exit codes that it may have once it has exited; empty = any.
        gone_ids: ids that stood here and were removed.
    """

    name: str
    attempt: int = 0
    identity: str = ""
    may_be: set[str] = field(default_factory=lambda: {ABSENT})
    codes: set[int] = field(default_factory=set)
    program: str = "sleep"
    gone_ids: list[str] = field(default_factory=list)

    def forget(self) -> None:
        """It was removed."""
        if self.identity:
            self.gone_ids.append(self.identity)
        self.identity, self.may_be, self.codes = "", {ABSENT}, set()
        self.attempt += 1

    def ended(self, *codes: int) -> None:
        """It has been ended, unless it had ended before."""
        if self.may_be != {EXITED}:
            self.codes = (
                (self.codes | set(codes)) if codes and (self.codes or self.may_be == {RUNNING}) else set()
            )
            self.may_be = {EXITED}


@dataclass
class PodModel:
    """One pod slot.

    Args:
        owing: its network is still to be taken down: stop and remove may be refused.
        half_made: only its rollback is owed: it vanishes by itself.
        in_flux: a cancelled create may show for a moment before it is taken back, and stays if its answer
            was on the way already.
        cancelled_at: how long noded's log was before that create.
    """

    number: int
    uid: str
    attempt: int = 0
    identity: str = ""
    may_be: set[str] = field(default_factory=lambda: {ABSENT})
    host_network: bool = False
    shares_pids: bool = False
    handler: str = "runc"
    ip: str = ""
    owing: bool = False
    half_made: bool = False
    in_flux: bool = False
    cancelled_at: int = 0
    gone_ids: list[str] = field(default_factory=list)
    containers: list[ContainerModel] = field(default_factory=list)

    def is_(self, state: str) -> bool:
        """Whether it is in this state for certain."""
        return self.may_be == {state}

    def forget(self) -> None:
        """It was removed with its containers."""
        if self.identity:
            self.gone_ids.append(self.identity)
        for container in self.containers:
            container.forget()
        self.identity, self.may_be, self.ip = "", {ABSENT}, ""
        self.owing = self.half_made = False
        self.attempt += 1

    def stopped(self) -> None:
        """It is not ready any more, and nothing runs in it."""
        self.may_be = {NOT_READY}
        for container in self.containers:
            if container.may_be == {CREATED}:
                container.codes, container.may_be = set(), {EXITED}
            elif container.may_be != {ABSENT}:
                container.ended(137)


@dataclass
class NodeModel:
    """All slots, and what is broken at the moment."""

    pods: list[PodModel] = field(default_factory=list)
    cni_broken: str = ""  # ADD, DEL, both
    disk_full: bool = False
    image_loaded: bool = False

    @classmethod
    def empty(cls) -> NodeModel:
        """A node without pods."""
        return cls(
            [
                PodModel(
                    number,
                    str(uuid.uuid4()),
                    containers=[ContainerModel(f"c{slot}") for slot in range(CONTAINERS)],
                )
                for number in range(PODS)
            ]
        )
