"""The pod network: what is configured now, whether it works, and attaching pods to it.

`run` keeps the choice in memory; `status` and `plan` only look at it. Every other verb works from
the attachment alone, so pods leave the network they joined, whatever the directory says today.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog
import trio

from noded.config import NetworkConfig
from noded.errors import NodedError, Unavailable
from noded.model.network import Attachment, AttachmentResult, NetworkStatus
from noded.model.pod import PodConfig
from noded.network import chain
from noded.network.capability import PodFacts, capability_args, cni_args
from noded.network.conflist import declared_capabilities
from noded.network.gate import Gate
from noded.network.hostlocal import free_lost_addresses
from noded.network.orphans import end_orphans
from noded.network.plugin import Budget, Plugins
from noded.network.podcidr import PodCIDRs, parse_pod_cidrs
from noded.network.readiness import Readiness, Survey
from noded.network.watch import DirectoryWatch

log = structlog.get_logger(__name__)

# The interface that Kubernetes expects a pod to have.
IFNAME = "eth0"

NOT_READY = "NetworkPluginNotReady"

# How old the knowledge may be when somebody asks for the status, before it is looked up again. The
# watch normally tells first; this catches what inotify cannot see, and re-runs STATUS. kubelet asks
# every 5 s; where nobody asks, nothing is done.
_READY_SECONDS = 30.0
_STATUS_SECONDS = 10.0
_NOT_READY_SECONDS = 4.0
_LONGEST_BACKOFF_SECONDS = 60.0

# Pause after a look, so that a burst of changes, or a plugin that writes into a watched directory
# when it is asked for its STATUS, cannot keep the node busy.
_PAUSE_SECONDS = 0.2

# GC waits that long for a moment without ADD and DEL, and then has that long while they wait.
_QUIET_SECONDS = 60.0
_GC_SECONDS = 30.0


class Network:
    """The node's CNI network.

    Args:
        cache_dir: remembers the pod CIDRs; must survive a reboot.
    """

    def __init__(self, config: NetworkConfig, cache_dir: Path) -> None:
        self._config = config
        self._owner = str(cache_dir)
        self._plugins = Plugins(config.bin_dirs, self._owner)
        self._readiness = Readiness(config, self._plugins)
        self._store = PodCIDRs(cache_dir, config.conf_dir, config.conf_template)
        self._cidrs: tuple[str, ...] = ()
        self._gate = Gate()
        self._refreshing = trio.Lock()
        self._survey = Survey(problem=f"{config.conf_dir} has not been read yet")
        self._due = 0.0
        self._late_in_a_row = 0
        self._watch: DirectoryWatch | None = None
        self._wake: Callable[[], None] | None = None
        self._changed = trio.Event()
        # Told of each operation that has ended: its name, "ok" or the class of error, seconds.
        self.observe: Callable[[str, str, float], None] = lambda operation, result, seconds: None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Watch the configuration until cancelled; "started" when it has been read once.

        First ends the plugins that an earlier noded left running, so await "started" before `add`
        and `delete`.

        Cancellation: safe; `status` and `plan` then stay at what was known last.
        """
        asked = trio.Event()
        token = trio.lowlevel.current_trio_token()

        def announce() -> None:
            asked.set()

        def wake() -> None:
            # `status` may be called outside of trio, on the asyncio side of the same thread.
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(announce, idempotent=True)

        self._watch = _open_watch()
        try:
            await end_orphans(self._owner)
            await self._restore_cidrs()
            await self._refresh()
            looked_at = trio.current_time()
            self._wake = wake
            task_status.started()
            while True:
                waits: list[Callable[[], Awaitable[object]]] = [asked.wait]
                if self._watch is not None:
                    waits.append(self._watch.changed)
                await _any(waits)
                await trio.sleep_until(looked_at + _PAUSE_SECONDS)
                asked = trio.Event()
                await self._refresh()
                looked_at = trio.current_time()
        finally:
            self._wake = None
            if self._watch is not None:
                self._watch.close()
                self._watch = None

    def status(self) -> NetworkStatus:
        """Whether pods can be attached, from memory; what is old is looked up again afterwards."""
        if self._wake is not None and time.monotonic() >= self._due:
            self._due = time.monotonic() + _NOT_READY_SECONDS
            self._wake()
        return _status(self._survey)

    async def changed(self) -> NetworkStatus:
        """Return the status as soon as it, or the network in use, is another than now.

        Cancellation: safe.
        """
        await self._changed.wait()
        return _status(self._survey)

    async def look(self, conf_dir: Path) -> Survey:
        """Find out which network another configuration directory has, for `plan`. Cancellation: safe."""
        config = replace(self._config, conf_dir=conf_dir, default_network="")
        return await Readiness(config, self._plugins).look(Survey(problem=f"{conf_dir} has not been read"))

    def plan(
        self,
        sandbox_id: str,
        netns_path: Path,
        pod: PodConfig,
        cgroup_path: str,
        network: Survey | None = None,
    ) -> tuple[Attachment, ...]:
        """Return the attachments that the pod needs now; store them before `add`. No side effects.

        Args:
            network: what `look` found, None = the node's network.

        Raises:
            Unavailable: no network is ready; says why.
            InvalidArgument: an annotation or field of the pod cannot be honoured.
        """
        survey = network or self._survey
        document = survey.document
        if document is None or survey.problem:
            raise Unavailable(f"pod network is not ready: {survey.problem}")
        declared = declared_capabilities(document["plugins"])
        facts = PodFacts(pod, cgroup_path, self._cidrs)
        attachment = Attachment(
            sandbox_id=sandbox_id,
            netns_path=str(netns_path),
            ifname=IFNAME,
            network=document["name"],
            conflist=document,
            cni_args=cni_args(sandbox_id, pod),
            capability_args=capability_args(declared, facts),
        )
        return (attachment,)

    async def add(self, attachment: Attachment) -> AttachmentResult:
        """Attach a sandbox: CNI ADD. Nothing is undone on failure, the caller owes `delete`.

        Waits while GC runs, at most some 30 s.

        Raises:
            Unavailable: a plugin is missing, failed, crashed or printed garbage.
            FailedPrecondition: the configuration is at fault, or the pod got no address.
            DeadlineExceeded: a plugin did not answer within `add_timeout_seconds`.

        Cancellation: kills the running plugin; what it did stays for `delete`.
        """
        with self._timed("ADD"):
            async with self._gate.passing():
                return await chain.add(self._plugins, attachment, Budget(self._config.add_timeout_seconds))

    async def delete(self, attachment: Attachment, result: AttachmentResult | None) -> None:
        """Detach a sandbox: CNI DEL. Idempotent; right after no, half or a whole ADD, or a reboot.

        Args:
            result: what `add` returned, None if that is not known.

        Raises: Unavailable, FailedPrecondition, DeadlineExceeded: DEL stays owed; names the plugin.

        Cancellation: kills the running plugin; DEL stays owed.
        """
        with self._timed("DEL"):
            async with self._gate.passing():
                budget = Budget(self._config.del_timeout_seconds)
                await chain.delete(self._plugins, attachment, result, budget)
                if result is None:
                    # ADD may have been cut off at any point, also where DEL cannot see what it did.
                    await free_lost_addresses(attachment.conflist)

    @contextmanager
    def _timed(self, operation: str) -> Iterator[None]:
        started = trio.current_time()
        result = "ok"
        try:
            yield
        except BaseException as error:
            result = type(error).__name__
            raise
        finally:
            self.observe(operation, result, trio.current_time() - started)

    async def check(self, attachment: Attachment, result: AttachmentResult) -> None:
        """Ask the plugins whether the attachment is as ADD left it: CNI CHECK, from 0.4.0 on.

        Raises: Unavailable, FailedPrecondition, DeadlineExceeded: it is not, or nobody can tell.

        Cancellation: safe.
        """
        async with self._gate.passing():
            await chain.check(self._plugins, attachment, result, Budget(self._config.del_timeout_seconds))

    async def gc(self, attachments: Iterable[Attachment]) -> None:
        """Let plugins free what belongs to no valid attachment: CNI GC, from 1.1.0 on.

        With any version, addresses that host-local lost in a crash are freed, see `hostlocal`.
        Runs only while no ADD or DEL does. On a node that is never quiet it gives up silently; the
        next period tries again.

        Args:
            attachments: every attachment that is stored, owed ones included. It is iterated only
                once ADD and DEL are kept out, so a generator over the live table misses none.

        Raises: the first plugin's error, others as its notes.

        Cancellation: kills the running plugin.
        """
        with trio.move_on_after(_QUIET_SECONDS) as waiting:
            await self._gate.quiet()
        if waiting.cancelled_caught:
            log.info("cni_gc_skipped", reason="ADD or DEL kept running", waited_seconds=_QUIET_SECONDS)
            return
        with self._gate.closed():
            valid = list(attachments)
            # Networks that left the directory still have pods; their stored lists tell how to ask.
            documents: dict[str, Mapping[str, Any]] = {a.network: a.conflist for a in valid}
            if self._survey.document is not None:
                documents[self._survey.document["name"]] = self._survey.document
            budget = Budget(_GC_SECONDS)
            errors: list[NodedError] = []
            for name, document in documents.items():
                members = [attachment for attachment in valid if attachment.network == name]
                await free_lost_addresses(document)
                try:
                    await chain.gc(self._plugins, document, members, budget)
                except NodedError as error:
                    errors.append(error)
        chain.raise_first(errors)

    async def update_pod_cidr(self, cidrs: str) -> None:
        """Take the node's pod CIDRs from kubelet: for `ipRanges`, and for `conf_template` if configured.

        Idempotent. An empty list changes nothing, as with the peers.

        Args:
            cidrs: one or more, separated by commas.

        Raises:
            InvalidArgument: an item is no CIDR.
            FailedPrecondition: the template cannot be rendered.
            Unavailable: a file cannot be written.

        Cancellation: safe; repeat the call.
        """
        parsed = parse_pod_cidrs(cidrs)
        if not parsed:
            return
        if parsed != self._cidrs:
            await trio.to_thread.run_sync(self._store.remember, parsed)
            self._cidrs = parsed
            log.info("pod_cidr", cidrs=list(parsed))
        if await trio.to_thread.run_sync(self._store.publish, parsed):
            await self._refresh()

    async def _restore_cidrs(self) -> None:
        self._cidrs = await trio.to_thread.run_sync(self._store.recall)
        try:
            await trio.to_thread.run_sync(self._store.publish, self._cidrs)
        except NodedError as error:
            log.error("conf_template_not_rendered", error=str(error))

    async def _refresh(self) -> None:
        async with self._refreshing:
            # Watch first, look second: a change in between makes another round.
            directories: tuple[Path, ...] = ()
            survey = self._survey
            while directories != self._readiness.directories():
                directories = self._readiness.directories()
                if self._watch is not None:
                    self._watch.arm(directories)
                survey = await self._readiness.look(self._survey)
            self._publish(survey)

    def _publish(self, survey: Survey) -> None:
        before, self._survey = self._survey, survey
        now = _status(survey)
        if now != _status(before):
            write = log.info if now.ready else log.warning
            write("network_ready" if now.ready else "network_not_ready", message=now.message)
        if survey != before:
            self._changed.set()
            self._changed = trio.Event()
        self._late_in_a_row = self._late_in_a_row + 1 if survey.late else 0
        self._due = time.monotonic() + _patience(survey, self._late_in_a_row)


def _patience(survey: Survey, late_in_a_row: int) -> float:
    if late_in_a_row:
        return min(_NOT_READY_SECONDS * 2.0 ** min(late_in_a_row, 10), _LONGEST_BACKOFF_SECONDS)
    if survey.problem:
        return _NOT_READY_SECONDS
    asks = survey.document is not None and survey.document["cniVersion"] == "1.1.0"
    return _STATUS_SECONDS if asks else _READY_SECONDS


def _status(survey: Survey) -> NetworkStatus:
    if survey.problem:
        remark = f" ({survey.remark})" if survey.remark else ""
        return NetworkStatus(False, NOT_READY, f"{survey.problem}{remark}")
    return NetworkStatus(True, "", survey.remark)


def _open_watch() -> DirectoryWatch | None:
    try:
        return DirectoryWatch()
    except NodedError as error:
        # Changes are then noticed when somebody asks for the status.
        log.error("cni_conf_not_watched", error=str(error))
        return None


async def _any(waits: list[Callable[[], Awaitable[object]]]) -> None:
    """Return as soon as one of them does; the others are cancelled."""

    async def one(wait: Callable[[], Awaitable[object]], done: trio.CancelScope) -> None:
        await wait()
        done.cancel()

    async with trio.open_nursery() as nursery:
        for wait in waits:
            nursery.start_soon(one, wait, nursery.cancel_scope)
