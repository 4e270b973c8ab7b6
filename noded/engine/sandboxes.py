"""RunPodSandbox, StopPodSandbox, RemovePodSandbox."""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection
from functools import partial
from typing import Any

import structlog
import trio

from noded.config import Config
from noded.engine.claims import Claim, Claims
from noded.engine.container import Container
from noded.engine.containers import Containers
from noded.engine.debts import Debts
from noded.engine.events import Events
from noded.engine.handlers import Handlers
from noded.engine.ladder import climb, descend
from noded.engine.nri import Nri
from noded.engine.operations import Operation, Operations
from noded.engine.pod_inits import PodInits
from noded.engine.registry import Registry
from noded.engine.sandbox import PodSandbox
from noded.engine.sandbox_ladder import SandboxLadder
from noded.engine.selinux import SELinux
from noded.errors import AlreadyExists, DeadlineExceeded, FailedPrecondition, Unavailable
from noded.host.cgroup_names import CRIO_PREFIX, PREFIX
from noded.host.cgroups import Cgroups
from noded.model.host import HostFacts
from noded.model.lifecycle import SandboxIntent
from noded.model.pod import PodConfig, Resources
from noded.model.records import SandboxRecord
from noded.model.timeline import Subject
from noded.model.views import SandboxView
from noded.spec.pod_features import pod_features
from noded.spec.validate import validate_pod
from noded.store.sandboxes import SandboxRows
from noded.tracing.spans import about, span, wait

log = structlog.get_logger(__name__)


class Sandboxes:
    """The life of pod sandboxes."""

    def __init__(
        self,
        *,
        config: Config,
        facts: HostFacts,
        rows: SandboxRows,
        registry: Registry,
        operations: Operations,
        handlers: Handlers,
        cgroups: Cgroups,
        ladder: SandboxLadder,
        containers: Containers,
        nri: Nri,
        selinux: SELinux,
        nursery: trio.Nursery,
        events: Events,
        debts: Debts,
    ) -> None:
        self._config = config
        self._facts = facts
        self._rows = rows
        self._registry = registry
        self._operations = operations
        self._handlers = handlers
        self._cgroups = cgroups
        self._ladder = ladder
        self._containers = containers
        self._nri = nri
        self._selinux = selinux
        self._events = events
        self._claims: Claims[PodSandbox] = Claims(
            "pod sandbox",
            nursery,
            config.unclaimed_seconds,
            present=registry.holds,
            remove=self._join_removal,
        )
        self._debts = debts
        self.inits = PodInits(nursery, config.stalled_seconds, self.stop)

    # reading

    def view(self, name: str) -> SandboxView:
        """The view of a sandbox by id or unique prefix. Raises NotFound."""
        return self._registry.sandbox(name).view

    def peek(self, identity: str) -> SandboxView:
        """By full id, also while it is being created; no client is taken to know it. Raises NotFound."""
        return self._registry.peek_sandbox(identity)

    def views(self) -> Collection[SandboxView]:
        """The views of all sandboxes that clients may see."""
        return [sandbox.view for sandbox in self._registry.sandboxes() if sandbox.visible]

    # running

    async def run(self, config: PodConfig, handler: str, request: bytes) -> str:
        """Create and start a pod sandbox; return its id.

        Idempotent by (namespace, name, uid, attempt): a retry joins the creation in progress or
        gets the id of the READY sandbox.

        Raises: InvalidArgument naming the field, FailedPrecondition for an unavailable handler,
            AlreadyExists when this attempt was stopped, Unavailable and others from the rungs.
        Cancellation: when the last waiter leaves, everything is undone before this returns.
        Spec: CRI v1 RunPodSandbox.
        """
        handler = self._handlers.resolve(handler)
        key = config.key
        about(Subject(key.namespace, key.name, key.uid))
        with wait("check the request"):
            _, features = await self._handlers.open(handler)
            validate_pod(config, features, self._facts)
            allowed = self._handlers.allowed_annotations(handler, config.annotations)
            asked = pod_features(config, allowed) if config.annotations else None
            self._cgroups.oci_path(config.cgroup_parent, "check")
        sandbox: PodSandbox = await self._operations.join(
            ("run", key),
            f"creating pod sandbox {key.namespace}/{key.name}",
            partial(self._run, config, handler, request, asked.warnings if asked else ()),
            abandoned=self._claims.abandon,
        )
        about(sandbox.subject)
        self._claims.answer(sandbox)
        return sandbox.id

    async def _run(
        self,
        config: PodConfig,
        handler: str,
        request: bytes,
        warnings: tuple[str, ...],
        operation: Operation[PodSandbox],
    ) -> PodSandbox:
        existing = self._registry.sandbox_of_key(config.key)
        if existing is not None:
            if existing.ready:
                return existing
            if existing.record.complete and existing.visible:
                raise AlreadyExists(
                    f"pod sandbox {existing.id[:12]} of {config.key} was stopped: "
                    "remove it, or ask with a higher attempt"
                )
            operation.stage = lambda: f"{existing.stage} of an earlier try"
            await self._remove(existing)
        record = SandboxRecord(
            id=secrets.token_hex(32),
            key=config.key,
            handler=handler,
            request=request,
            config=config,
            created_at_ns=self._registry.next_sandbox_time(config.key, time.time_ns()),
            boot_id=self._facts.boot_id,
            intent=SandboxIntent.CREATING,
            overhead=config.overhead,
            resources=config.resources,
            cgroup_prefix=CRIO_PREFIX if self._config.compat.cadvisor else PREFIX,
            selinux_level=self._selinux.level(config, self._registry.selinux_levels),
        )
        for warning in warnings:
            log.warning("annotation without effect", id=record.id, pod=str(config.key), detail=warning)
        sandbox = PodSandbox(self._rows, record, self._events)
        sandbox.claim = Claim(named=False)
        operation.stage = lambda: sandbox.stage
        about(sandbox.subject)
        self._registry.add_sandbox(sandbox)
        try:
            await self._climb(sandbox)
            self.inits.watch(sandbox)
        except BaseException as error:
            with trio.CancelScope(shield=True):
                if self._nri.enabled:
                    await self._nri.give_up_pod(sandbox)
                await self._forget_or_owe(sandbox, error)
            raise
        log.info(
            "pod sandbox ready",
            id=sandbox.id,
            pod=str(config.key),
            handler=handler,
            ips=list(sandbox.record.ips),
        )
        return sandbox

    async def _climb(self, sandbox: PodSandbox) -> None:
        budget = self._handlers.create_timeout_seconds(sandbox.record.handler)
        reached = ""
        with trio.move_on_after(budget) as scope:
            try:
                await climb(self._ladder.rungs, sandbox)
            except trio.Cancelled:
                reached = sandbox.stage
                raise
        if scope.cancelled_caught:
            raise DeadlineExceeded(
                f"creating the pod sandbox took longer than {budget:g} s {reached}".rstrip()
            )

    async def unwind(self, sandbox: PodSandbox) -> None:
        """Do the rollback of a create whose daemon died. As with any, clients see of it only what stays.

        Raises: what halted it; it is a debt then.
        """
        async with sandbox.lock:
            if sandbox.record.intent is not SandboxIntent.CREATING or not self._registry.holds(sandbox):
                return  # a retry of the create was faster
            try:
                await descend(self._ladder.rungs, sandbox)
            except Exception as error:
                await self._forget_or_owe(sandbox, error)
                raise
            self._registry.drop_sandbox(sandbox)
            log.info("half-made pod sandbox removed", id=sandbox.id)

    async def _forget_or_owe(self, sandbox: PodSandbox, error: BaseException) -> None:
        """After a failed create: drop it when the rollback was complete, else keep it visible."""
        if sandbox.stage == "":  # descend() reached the ground: the row is gone
            self._registry.drop_sandbox(sandbox)
            sandbox.tell_deleted()
            return
        creating = sandbox.record.intent is SandboxIntent.CREATING
        changes = {"intent": SandboxIntent.STOPPING} if creating else {}
        try:
            await self._owe(sandbox, sandbox.halted or error, **changes)
        except Exception as problem:  # the create's own error counts; the retries need no record
            log.warning("debt not recorded yet", id=sandbox.id, error=str(problem))

    # stopping

    async def stop(self, name: str) -> None:
        """Stop every container, then take down network and namespaces; the record stays.

        Idempotent; an unknown sandbox is success. Raises: Unavailable while a take-down is owed
        and younger than `del_grace_seconds`. Spec: CRI v1 StopPodSandbox.
        """
        sandbox = self._registry.find_sandbox(name)
        if sandbox is None:
            return
        sandbox.claim.named = True
        about(sandbox.subject)
        await self._operations.join(
            ("stop", sandbox.id),
            f"stopping pod sandbox {sandbox.id[:12]}",
            partial(self._stop_operation, sandbox),
        )

    async def _stop_operation(self, sandbox: PodSandbox, operation: Operation[None]) -> None:
        operation.stage = lambda: sandbox.stage
        async with sandbox.lock:
            await self._stop(sandbox)

    async def _stop(self, sandbox: PodSandbox) -> None:
        if sandbox.record.intent is SandboxIntent.STOPPED:
            return
        if sandbox.record.intent in (SandboxIntent.CREATING, SandboxIntent.READY):
            await sandbox.commit(intent=SandboxIntent.STOPPING)
        try:
            await self._stop_containers(sandbox)
        except Exception as error:
            await self._owe(sandbox, error)
            raise
        if await self._take_down(sandbox):
            await sandbox.commit(intent=SandboxIntent.STOPPED, owed=None)
            log.info("pod sandbox stopped", id=sandbox.id)

    async def _stop_containers(self, sandbox: PodSandbox) -> None:
        sandbox.stage = "stopping containers"
        with span("containers"):
            await self._containers.stop_all(sandbox)
        if self._nri.active:
            with span("NRI plugins"):
                await self._nri.stop_pod(sandbox)

    async def _take_down(self, sandbox: PodSandbox) -> bool:
        """Descend to the record. False = owed, and old enough not to bother the client with it."""
        try:
            await descend(self._ladder.stop_rungs, sandbox)
        except Exception as error:
            await self._owe(sandbox, error)
            if self._debts.in_grace(sandbox):
                raise Unavailable(
                    f"pod sandbox {sandbox.id[:12]} cannot be taken down yet ({sandbox.stage}): {error}"
                ) from error
            log.warning(
                "take-down goes on without the client", id=sandbox.id, stage=sandbox.stage, error=str(error)
            )
            return False
        return True

    # removing

    async def remove(self, name: str) -> None:
        """Stop if necessary, remove every container, forget the sandbox.

        Idempotent; an unknown sandbox is success. Raises: as `stop`. Spec: CRI v1 RemovePodSandbox.
        """
        sandbox = self._registry.find_sandbox(name)
        if sandbox is None:
            return
        sandbox.claim.named = True
        await self._join_removal(sandbox)

    async def _join_removal(self, sandbox: PodSandbox) -> None:
        about(sandbox.subject)
        await self._operations.join(
            ("remove", sandbox.id),
            f"removing pod sandbox {sandbox.id[:12]}",
            partial(self._remove_operation, sandbox),
        )

    async def _remove_operation(self, sandbox: PodSandbox, operation: Operation[None]) -> None:
        operation.stage = lambda: sandbox.stage
        await self._remove(sandbox)

    async def _remove(self, sandbox: PodSandbox) -> None:
        async with sandbox.lock:
            if not self._registry.holds(sandbox) or sandbox.record.intent is SandboxIntent.OWED:
                return
            await self._stop(sandbox)
            sandbox.stage = "removing containers"
            with span("containers"):
                await self._containers.remove_all(sandbox)
            await self._nri.remove_pod(sandbox)
            await self._forget(sandbox)

    async def _forget(self, sandbox: PodSandbox) -> None:
        with trio.CancelScope(shield=True):
            if sandbox.record.owed is not None:
                await sandbox.commit(intent=SandboxIntent.OWED)
                self._registry.free_sandbox_key(sandbox)
                return
            await descend(self._ladder.rungs[:1], sandbox)
            self._registry.drop_sandbox(sandbox)
            sandbox.tell_deleted()
            log.info("pod sandbox removed", id=sandbox.id)

    # debts

    async def _owe(self, sandbox: PodSandbox, error: BaseException, **changes: Any) -> None:
        sandbox.claim.named = True  # to be seen as long as it stays
        await self._debts.owe(sandbox, error, partial(self.retry, sandbox), **changes)

    def keep_retrying(self, sandbox: PodSandbox) -> None:
        """Retry what is owed since before a restart; returns at once."""
        self._debts.schedule(sandbox, partial(self.retry, sandbox))

    async def retry(self, sandbox: PodSandbox) -> None:
        """One more try of what is owed; called in the background. Returns when nothing is."""
        async with sandbox.lock:
            settled = (SandboxIntent.READY, SandboxIntent.STOPPED)
            if not self._registry.holds(sandbox) or sandbox.record.intent in settled:
                return
            if sandbox.record.intent is SandboxIntent.CREATING:
                await sandbox.commit(intent=SandboxIntent.STOPPING)
            try:
                await self._stop_containers(sandbox)
                await descend(self._ladder.stop_rungs, sandbox)
                await self._settle(sandbox)
            except Exception as error:
                await self._owe(sandbox, error)
                raise

    async def _settle(self, sandbox: PodSandbox) -> None:
        """Nothing is owed any more: stopped for those who see it, gone for those who do not."""
        if sandbox.record.complete and sandbox.visible:
            await sandbox.commit(intent=SandboxIntent.STOPPED, owed=None)
            return
        await self._containers.remove_all(sandbox)
        # The row first: one that owes nothing any more would not be looked at again after a crash.
        await descend(self._ladder.rungs[:1], sandbox)
        await sandbox.commit(owed=None)
        self._registry.drop_sandbox(sandbox)
        sandbox.tell_deleted()
        log.info("debt settled", id=sandbox.id)

    async def forgive(self, debt_id: str) -> str:
        """Give up what a sandbox owes and forget the CNI attachment, on an operator's word.

        Args:
            debt_id: the debt's id, or a start of it that fits no other.

        Returns: the whole id.
        Raises: NotFound, InvalidArgument where several fit, FailedPrecondition for a container's debt, or
            the error of a rung that is not the network's.
        """
        sandbox = self._debts.debtor(debt_id)
        if isinstance(sandbox, Container):
            raise FailedPrecondition(
                f"the removal of container {sandbox.id[:12]} cannot be given up, mounts or processes of it "
                "would stay: cure what its last error names, or reboot the node; it is retried by itself"
            )
        log.warning("debt forgiven", id=sandbox.id, stage=sandbox.stage)
        async with sandbox.lock:
            await sandbox.commit(attachments=(), results=())
        await self.retry(sandbox)
        return sandbox.id

    # resources

    async def update_resources(
        self, name: str, overhead: Resources | None, resources: Resources | None
    ) -> None:
        """Remember the pod's new resources; kubelet itself owns the pod cgroup.

        Raises: NotFound. Spec: CRI v1 UpdatePodSandboxResources.
        """
        sandbox = self._registry.sandbox(name)
        if self._nri.active:
            await self._nri.update_pod(sandbox, overhead, resources)
        await sandbox.commit(overhead=overhead, resources=resources)
        if self._nri.active:
            await self._nri.pod_updated(sandbox)
