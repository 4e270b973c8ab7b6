"""Life cycles as data: what is persisted (intent), which steps are allowed, what clients see.

Only facts and intents are stored. The CRI state is derived here, by one function per object, so
there is no second place where a state could be remembered differently.

    sandbox     CREATING -> READY -> STOPPING -> STOPPED -> (row deleted)
                    '-----------------^  '-> OWED -> (row deleted)
    container   CREATING -> CREATED -> STARTED -> REMOVING -> (row deleted)
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

from noded.errors import Internal
from noded.model.states import ContainerState, SandboxState

if TYPE_CHECKING:
    from noded.model.runtime import Exit


class SandboxIntent(StrEnum):
    """How far a sandbox is to be, as its record says."""

    CREATING = "creating"  # the ladder is being climbed; unwound after a crash
    READY = "ready"
    STOPPING = "stopping"  # being taken down; a failed step is retried
    STOPPED = "stopped"  # everything down but the record
    OWED = "owed"  # clients were told it is gone, but a teardown is still owed

    @property
    def made(self) -> bool:
        """Whether it was completed, or what is left of it is known to stay, and no client told it is gone."""
        return self not in (SandboxIntent.CREATING, SandboxIntent.OWED)


class ContainerIntent(StrEnum):
    """How far a container is to be, as its record says."""

    CREATING = "creating"
    CREATED = "created"
    STARTED = "started"
    REMOVING = "removing"

    @property
    def made(self) -> bool:
        """Whether it was completed, or what is left of it is known to stay for now."""
        return self is not ContainerIntent.CREATING


SANDBOX_STEPS: dict[SandboxIntent, frozenset[SandboxIntent]] = {
    SandboxIntent.CREATING: frozenset({SandboxIntent.READY, SandboxIntent.STOPPING}),
    SandboxIntent.READY: frozenset({SandboxIntent.STOPPING}),
    SandboxIntent.STOPPING: frozenset({SandboxIntent.STOPPED, SandboxIntent.OWED}),
    SandboxIntent.STOPPED: frozenset(),
    SandboxIntent.OWED: frozenset(),
}

CONTAINER_STEPS: dict[ContainerIntent, frozenset[ContainerIntent]] = {
    ContainerIntent.CREATING: frozenset({ContainerIntent.CREATED, ContainerIntent.REMOVING}),
    ContainerIntent.CREATED: frozenset({ContainerIntent.STARTED, ContainerIntent.REMOVING}),
    ContainerIntent.STARTED: frozenset({ContainerIntent.REMOVING}),
    ContainerIntent.REMOVING: frozenset(),
}


def check_step(steps: dict[Any, frozenset[Any]], old: StrEnum, new: StrEnum) -> None:
    """Refuse a change of intent that the table does not have. Raises Internal: it is a defect."""
    if new is not old and new not in steps[old]:
        raise Internal(f"a life cycle cannot go from {old.value} to {new.value}")


def sandbox_state(intent: SandboxIntent) -> SandboxState:
    """The CRI state of a sandbox: READY only while nothing has been taken down."""
    return SandboxState.READY if intent is SandboxIntent.READY else SandboxState.NOTREADY


def container_state(intent: ContainerIntent, *, exited: bool) -> ContainerState:
    """The CRI state of a container. A recorded exit wins; a half-made container counts as exited."""
    if exited:
        return ContainerState.EXITED
    if intent is ContainerIntent.CREATED:
        return ContainerState.CREATED
    if intent is ContainerIntent.STARTED:
        return ContainerState.RUNNING
    return ContainerState.EXITED


def sandbox_seen(intent: SandboxIntent, *, same_boot: bool) -> SandboxState:
    """The state that a start shows: what an earlier boot has run is not running."""
    return sandbox_state(intent) if same_boot else SandboxState.NOTREADY


def container_seen(intent: ContainerIntent, *, exited: bool, same_boot: bool) -> ContainerState:
    """The state that a start shows, as `sandbox_seen`."""
    return container_state(intent, exited=exited or not same_boot)


def exit_reason(exited: Exit, *, started: bool) -> str:
    """The `reason` of a finished container as kubelet knows it."""
    if exited.oom_killed:
        return "OOMKilled"
    if exited.reason:
        return exited.reason
    if not started:
        return "StartError" if exited.message else "Error"
    return "Completed" if exited.code == 0 else "Error"
