"""A pod sandbox in memory: its record, its view, and what must not happen twice at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import trio

from noded.engine.claims import Claim
from noded.engine.events import EventKind, Events, sandbox_events
from noded.engine.pending import Pending
from noded.model.lifecycle import SANDBOX_STEPS, SandboxIntent, check_step, sandbox_state
from noded.model.network import Attachment, AttachmentResult
from noded.model.records import SandboxRecord
from noded.model.runtime import Runtime, Sandbox
from noded.model.timeline import Subject
from noded.model.views import SandboxView
from noded.store.sandboxes import SandboxRows


class PodSandbox:
    """One sandbox. `record` is what the database holds, always; `view` is derived from it.

    `lock` serialises taking down; it is never held across a client's wait. `runtime` is the open
    sandbox of the handler, None until it was started or attached.
    """

    def __init__(self, rows: SandboxRows, record: SandboxRecord, events: Events) -> None:
        self._rows = rows
        self._events = events
        self._commit_lock = trio.Lock()
        self._pending = Pending()
        self.record = record
        self.stage = ""
        self.halted: Exception | None = None
        self.lock = trio.Lock()
        self.runtime: Sandbox | None = None
        self.made_by: Runtime | None = None  # stays what it is when the handler is reloaded
        self.pid = 0
        self.ended_because = ""  # why it ended without being told to
        self.claim = Claim()
        self.view = self._view()

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def subject(self) -> Subject:
        """Itself, in timelines."""
        key = self.record.key
        return Subject(key.namespace, key.name, key.uid, self.id)

    @property
    def made(self) -> bool:
        """Whether it was completed, or what is left of it is known to stay, and no client told it is gone."""
        return self.record.intent.made

    @property
    def visible(self) -> bool:
        """Whether clients see it: not before it is made, nor on its way down if none was told of it."""
        return self.made and (self.claim.held or self.ready)

    @property
    def ready(self) -> bool:
        return self.record.intent is SandboxIntent.READY

    @property
    def attachment_results(self) -> tuple[AttachmentResult, ...]:
        """What the CNI plugins answered, recorded already or not."""
        results: tuple[AttachmentResult, ...] = self._pending.get("results", self.record.results)
        return results

    @property
    def attached(self) -> tuple[Attachment, ...]:
        """The attachments whose DEL is owed as far as this process knows."""
        attachments: tuple[Attachment, ...] = self._pending.get("attachments", self.record.attachments)
        return attachments

    def commit_later(self, **changes: Any) -> None:
        """Change record fields with the next `commit`: of what a daemon that dies before can do without."""
        self._pending.note(changes)

    async def commit(self, **changes: Any) -> None:
        """Make changed record fields durable, then visible. Not cancellable half-way."""
        with trio.CancelScope(shield=True):
            async with self._commit_lock:
                taken = self._pending.taken()
                record = replace(self.record, **{**taken, **changes})
                check_step(SANDBOX_STEPS, self.record.intent, record.intent)
                await self._rows.update(record)
                self._pending.committed(taken)
                old, self.record = self.record, record
                self.view = self._view()
                for kind in sandbox_events(old, record):
                    self._events.publish(kind, self.view)

    def tell_deleted(self) -> None:
        """Publish the end of a sandbox that the registry has dropped."""
        if self.record.complete and self.made:  # a debt was told to be gone when it became one
            self._events.publish(EventKind.DELETED, self.view)

    def refresh(self) -> None:
        """Build the view anew after a change of something that is not in the record."""
        self.view = self._view()

    def _view(self) -> SandboxView:
        record = self.record
        info: dict[str, Any] = {
            "runtimeHandler": record.handler,
            "intent": record.intent.value,
            "pid": self.pid,
        }
        if self.ended_because:
            info["endedBecause"] = self.ended_because
        if record.owed is not None:
            info["owed"] = record.owed.shown()
        if record.results:
            info["cniResult"] = dict(record.results[0].raw)
        return SandboxView(
            id=record.id,
            config=record.config,
            handler=record.handler,
            state=sandbox_state(record.intent),
            created_at_ns=record.created_at_ns,
            ips=record.ips,
            pid=self.pid,
            info=tuple(info.items()),
        )
