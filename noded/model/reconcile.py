"""What a restarted daemon does about each record: a pure function of rows, observations, boot id.

Nothing is deleted on doubt: a live pod stays, a half-made one is unwound, and what was being taken
down goes on being taken down.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from noded.model.lifecycle import ContainerIntent, SandboxIntent
from noded.model.records import ContainerRecord, SandboxRecord
from noded.model.runtime import TaskState


class Todo(StrEnum):
    """One thing to do about one object."""

    KEEP = "keep"  # nothing: exited containers, stopped sandboxes
    WATCH = "watch"  # it lives (or its exit is on record at the monitor): supervise it
    MARK_STARTED = "mark started"  # it was started, but the daemon died before it could note so
    MARK_LOST = "mark lost"  # the node rebooted: exited with an unknown code
    UNWIND = "unwind"  # half made or half removed: descend its whole ladder
    STOP = "stop"  # the sandbox is not whole any more, or was being stopped: descend to the record
    RETRY = "retry"  # owed since before: keep retrying


@dataclass(frozen=True, slots=True)
class Observed:
    """What the node shows of the recorded objects.

    Args:
        whole: sandbox id -> whether all namespace pins are there.
        tasks: id of containers with intent CREATED -> the runtime's word, when it was asked.
    """

    whole: Mapping[str, bool]
    tasks: Mapping[str, TaskState]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, by id."""

    sandboxes: Mapping[str, Todo]
    containers: Mapping[str, Todo]


def plan(
    sandboxes: Iterable[SandboxRecord],
    containers: Iterable[ContainerRecord],
    observed: Observed,
    boot_id: str,
) -> Plan:
    """Decide for every record. Total: every record gets exactly one thing to do."""
    sandbox_todo = {record.id: _sandbox(record, observed, boot_id) for record in sandboxes}
    container_todo = {record.id: _container(record, observed, boot_id) for record in containers}
    return Plan(sandbox_todo, container_todo)


def _sandbox(record: SandboxRecord, observed: Observed, boot_id: str) -> Todo:
    if record.owed is not None:
        return Todo.RETRY
    if record.intent is SandboxIntent.CREATING:
        return Todo.UNWIND
    if record.intent is SandboxIntent.STOPPED:
        return Todo.KEEP
    if record.intent is SandboxIntent.OWED:
        return Todo.RETRY
    if record.intent is SandboxIntent.STOPPING or record.boot_id != boot_id:
        return Todo.STOP
    return Todo.WATCH if observed.whole.get(record.id, False) else Todo.STOP


def _container(record: ContainerRecord, observed: Observed, boot_id: str) -> Todo:
    if record.intent in (ContainerIntent.CREATING, ContainerIntent.REMOVING):
        return Todo.UNWIND
    if record.exited is not None:
        return Todo.KEEP
    if record.boot_id != boot_id:
        return Todo.MARK_LOST
    if record.intent is ContainerIntent.CREATED and observed.tasks.get(record.id) is TaskState.RUNNING:
        return Todo.MARK_STARTED
    if record.intent is ContainerIntent.CREATED and record.restore:
        return Todo.KEEP  # it has no task yet: the start restores it
    return Todo.WATCH
