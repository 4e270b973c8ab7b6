"""A container in memory: its record, its view, its task."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import trio

from noded.engine.claims import Claim
from noded.engine.events import EventKind, Events, container_events
from noded.engine.pending import Pending
from noded.engine.sandbox import PodSandbox
from noded.model.lifecycle import (
    CONTAINER_STEPS,
    ContainerIntent,
    check_step,
    container_state,
    exit_reason,
)
from noded.model.records import ContainerRecord
from noded.model.runtime import Exit, TaskRef
from noded.model.states import ContainerState
from noded.model.views import ContainerView
from noded.store.containers import ContainerRows


class Container:
    """One container. `record` is what the database holds, always; `view` is derived from it.

    `exited` is set once the exit is durable. `lock` serialises start and take-down; `saving` serialises
    checkpoints, and is taken before it.
    """

    def __init__(
        self,
        rows: ContainerRows,
        record: ContainerRecord,
        sandbox: PodSandbox,
        bundle: Path,
        events: Events,
    ) -> None:
        self._rows = rows
        self._events = events
        self._commit_lock = trio.Lock()
        self._pending = Pending()
        self.record = record
        self.sandbox = sandbox
        self.ref = TaskRef(id=record.id, sandbox_id=sandbox.id, bundle=bundle, cgroup=record.cgroup)
        self.stage = ""
        self.halted: Exception | None = None
        self.lock = trio.Lock()
        self.saving = trio.Lock()
        self.freezing: trio.CancelScope | None = None  # of the checkpoint that keeps it frozen
        self.frozen = ""  # why it could not be thawed after a checkpoint
        self.exited = trio.Event()
        self.claim = Claim()
        self.created_pid = 0  # of init, until the record has it
        self.start_asked_ns = 0  # when StartContainer asked the runtime, before that is durable
        self.task_started = False  # the runtime has started it, which is perhaps not durable yet
        self.cpus_tuned = True  # or perhaps: one that this process has not made may have been before
        self.task_gone = False  # the runtime has forgotten the task
        if record.exited is not None:
            self.exited.set()
        self._told = record.intent is not ContainerIntent.CREATING  # clients may know of it
        self.view = self._view()

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def made(self) -> bool:
        """Whether it was completed, or what is left of it is known to stay for now."""
        return self.record.intent.made

    @property
    def visible(self) -> bool:
        """Whether clients see it: not before it is made, nor on its way down if none was told of it."""
        return self.made and (self.claim.held or self.view.state is ContainerState.CREATED)

    def commit_later(self, **changes: Any) -> None:
        """Change record fields with the next `commit`: of what a daemon that dies before can do without."""
        self._pending.note(changes)

    async def commit(self, **changes: Any) -> None:
        """Make changed record fields durable, then visible. Not cancellable half-way."""
        with trio.CancelScope(shield=True):
            async with self._commit_lock:
                await self._commit(**changes)

    async def end(self, ended: Exit) -> bool:
        """Make the exit durable, unless there is one already: the first word stands.

        Returns: whether this was the first.
        """
        first = False
        with trio.CancelScope(shield=True):
            async with self._commit_lock:
                if self.record.exited is None:
                    started = self.record.started_at_ns or self.start_asked_ns
                    await self._commit(exited=ended, started_at_ns=started)
                    first = True
        return first

    async def _commit(self, **changes: Any) -> None:
        taken = self._pending.taken()
        record = replace(self.record, **{**taken, **changes})
        check_step(CONTAINER_STEPS, self.record.intent, record.intent)
        await self._rows.update(record)
        self._pending.committed(taken)
        old, self.record = self.record, record
        self.view = self._view()
        for kind in container_events(old, record):
            self._told = True
            self._events.publish(kind, self.sandbox.view, self.view)
        if record.exited is not None:
            self.exited.set()

    def interrupt_checkpoint(self) -> None:
        """Give up the checkpoint that keeps the container frozen, if there is one: it is to end."""
        if self.freezing is not None:
            self.freezing.cancel()

    def set_frozen(self, reason: str) -> None:
        """Show why the container stays frozen, "" = it is not."""
        self.frozen = reason
        self.view = self._view()

    def tell_deleted(self) -> None:
        """Publish the end of a container that the registry has dropped."""
        if self._told:
            self._events.publish(EventKind.DELETED, self.sandbox.view, self.view)

    def _view(self) -> ContainerView:
        record, ended = self.record, self.record.exited
        return ContainerView(
            id=record.id,
            sandbox_id=record.key.sandbox_id,
            config=record.config,
            state=container_state(record.intent, exited=ended is not None),
            created_at_ns=record.created_at_ns,
            image_id=record.image_id,
            log_path=record.log_path,
            started_at_ns=record.started_at_ns,
            finished_at_ns=ended.finished_at_ns if ended else 0,
            exit_code=ended.code if ended else 0,
            reason=exit_reason(ended, started=record.started_at_ns > 0) if ended else "",
            message=ended.message if ended else "",
            resources=record.resources,
            user=record.user,
            stop_signal=record.stop_signal,
            volume_images=record.volume_images,
            pid=0 if ended else record.pid,
            info=(
                ("sandboxID", record.key.sandbox_id),
                ("pid", 0 if ended else record.pid),
                ("intent", record.intent.value),
                ("cgroup", record.cgroup),
                ("bundle", str(self.ref.bundle)),
                ("runtimeHandler", self.sandbox.record.handler),
                *((("frozen", self.frozen),) if self.frozen else ()),
                *((("owed", record.owed.shown()),) if record.owed is not None else ()),
                *((("seccompArtifact", record.seccomp_artifact),) if record.seccomp_artifact else ()),
            ),
        )
