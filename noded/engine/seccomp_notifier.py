"""What containers' seccomp filters tell: blocked calls are reported, or end the container; or all are noted.

A holder per container (`noded.host.seccomp_notify`) answers the kernel and keeps a report file; this
module starts and ends holders, and reads reports. Nothing runs while no container asks for it.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import structlog
import trio

from noded.engine.backoff import local_delays
from noded.engine.container import Container
from noded.engine.sandbox_ladder import SandboxLadder
from noded.engine.seccomp_reports import answers_by_number, read_report, read_told, write_told
from noded.errors import FailedPrecondition
from noded.host import files, seccomp_holder, syscall_names
from noded.host.cgroups import Cgroups
from noded.host.inotify import IN_MOVED_TO, Inotify
from noded.model.paths import Layout
from noded.model.runtime import Exit
from noded.spec.seccomp.annotations import NotifyMode
from noded.spec.seccomp.notify import errnos_of, minimal

log = structlog.get_logger(__name__)

STOP_SECONDS = 5.0  # from the first blocked call to the end of the container
STOPPED_REASON = "seccomp killed"  # CRI-O's word
_KILLED_CODE = 137


@dataclass(frozen=True, slots=True)
class Recording:
    """What a container called so far, and the profile that allows just that."""

    container_id: str
    name: str
    attempt: int
    calls: Mapping[str, int]
    profile: Mapping[str, Any]


class SeccompNotifier:
    """Listeners of containers, by their records.

    Args:
        kill: ends a container at once.
    """

    def __init__(
        self, layout: Layout, cgroups: Cgroups, sandboxes: SandboxLadder, nursery: trio.Nursery
    ) -> None:
        self._layout, self._cgroups, self._sandboxes, self._nursery = layout, cgroups, sandboxes, nursery
        self._watched: dict[str, _Watched] = {}
        self._watching = False
        self.kill: Callable[[Container], Awaitable[None]] | None = None
        # Told of each blocked call: name, how many more.
        self.observe: Callable[[str, int], None] = lambda name, count: None
        # Told of each name once for a container: sandbox id, container id, name.
        self.tell: Callable[[str, str, str], None] = lambda sandbox, container, name: None

    # the rung

    async def up(self, container: Container) -> None:
        """Start the holder that the container's spec names. Raises: Unavailable, FailedPrecondition."""
        if not container.record.seccomp_mode:
            return
        spec = json.loads(await trio.Path(container.ref.bundle / "config.json").read_bytes())
        seccomp = spec["linux"].get("seccomp") or {}
        path = self._layout.seccomp_listener(container.id)
        if seccomp.get("listenerPath") != str(path):
            log.warning("no seccomp filter, so none of its calls is told", id=container.id)
            return
        place = self._sandboxes.monitor_cgroup(container.sandbox)

        def start() -> None:
            errnos = errnos_of(seccomp)
            if errnos is not None:
                errnos = answers_by_number(errnos, seccomp.get("architectures") or ())
            syscall_names.number_of(0, "read")  # a missing library is said now, not at the first report
            path.parent.mkdir(mode=0o700, exist_ok=True)
            report = self._layout.seccomp_report(container.id)

            def moved(pid: int) -> None:
                if place:
                    self._cgroups.create(place)
                    self._cgroups.attach(place, pid)

            seccomp_holder.start(path, report, errnos, moved)

        await trio.to_thread.run_sync(start)

    async def down(self, container: Container) -> None:
        """End the holder and remove what it left. Idempotent; needs only the record."""
        if not container.record.seccomp_mode:
            return
        watched = self._watched.pop(container.id, None)

        def end() -> None:
            if not self._layout.seccomp.is_dir():
                return
            seccomp_holder.end(self._layout.seccomp_listener(container.id))
            for path in (self._layout.seccomp_report(container.id), self._layout.seccomp_told(container.id)):
                path.unlink(missing_ok=True)
                path.with_name(f"{path.name}.new").unlink(missing_ok=True)

        async with watched.one_look if watched is not None else nullcontext():
            await trio.to_thread.run_sync(end)

    # blocked calls

    def watch(self, container: Container) -> None:
        """Report what the container's profile blocks; returns at once."""
        if container.record.seccomp_mode not in (NotifyMode.STOP, NotifyMode.LOG):
            return
        self._watched[container.id] = _Watched(container)
        if self._watching:
            self._nursery.start_soon(self._look, container.id)
        else:
            self._watching = True
            self._nursery.start_soon(self._watch)

    async def _watch(self) -> None:
        """Follow the reports, and never give up: containers that are to be stopped count on it."""
        delays = local_delays()
        while True:
            try:
                with closing(Inotify()) as inotify:
                    self._layout.seccomp.mkdir(mode=0o700, exist_ok=True)
                    inotify.watch(self._layout.seccomp, IN_MOVED_TO)
                    for identity in list(self._watched):  # what was reported while nobody watched
                        await self._look(identity)
                    while True:
                        names = {event.name for event in await inotify.read()}
                        delays = local_delays()
                        for identity in list(self._watched):
                            if "" in names or self._layout.seccomp_report(identity).name in names:
                                await self._look(identity)
            except Exception as error:  # such as no inotify instance left
                delay = next(delays)
                log.warning(
                    "blocked system calls are not reported now, tried again", error=str(error), seconds=delay
                )
            await trio.sleep(delay)

    async def _look(self, identity: str) -> None:
        """Read one report. A failure is this container's alone, and its report is read again."""
        watched = self._watched.get(identity)
        if watched is None:
            return
        try:
            await self._tell(watched)
        except Exception as error:
            log.warning("report of blocked system calls not read yet", id=identity, error=str(error))
            if not watched.retried:
                watched.retried = True
                self._nursery.start_soon(self._look_again, identity, watched)

    async def _look_again(self, identity: str, watched: _Watched) -> None:
        for delay in local_delays():
            await trio.sleep(delay)
            if self._watched.get(identity) is not watched:
                return
            try:
                await self._tell(watched)
                watched.retried = False
                return
            except Exception as error:
                log.warning("report of blocked system calls not read yet", id=identity, error=str(error))

    async def _tell(self, watched: _Watched) -> None:
        """Tell of what a container called since the last time, and stop it if it is to be stopped."""
        container = watched.container
        report, told = self._layout.seccomp_report(container.id), self._layout.seccomp_told(container.id)
        async with watched.one_look:  # of two looks at once, an older one must not come last
            if self._watched.get(container.id) is not watched:  # it is being removed: leave no file
                return
            calls = await trio.to_thread.run_sync(read_report, report)
            if watched.told is None:
                watched.told = await trio.to_thread.run_sync(read_told, told)
            before = watched.told
            more = {name: count - before.get(name, 0) for name, count in calls.items()}
            more = {name: count for name, count in more.items() if count > 0}
            if calls and container.record.seccomp_mode == NotifyMode.STOP and not watched.stopping:
                watched.stopping = True
                self._nursery.start_soon(self._stop, container)
            if not more:
                return
            watched.told = {**before, **{name: calls[name] for name in more}}
            for name, count in more.items():
                self.observe(name, count)
            for name in [name for name in more if name not in before]:
                self.tell(container.sandbox.id, container.id, name)
                log.warning(
                    "seccomp blocked a system call",
                    syscall=name,
                    id=container.id,
                    container=container.record.key.name,
                    pod=str(container.sandbox.record.key),
                    mode=container.record.seccomp_mode,
                )
            # Last: a daemon that dies in between is followed by one that tells it again, not by silence.
            await trio.to_thread.run_sync(write_told, told, watched.told)

    async def _stop(self, container: Container) -> None:
        with trio.move_on_after(STOP_SECONDS):
            await container.exited.wait()
        for delay in local_delays():
            if container.exited.is_set() or container.id not in self._watched or self.kill is None:
                return
            log.warning("stopping a container for the system calls it made", id=container.id)
            try:
                await self.kill(container)
                return
            except Exception as error:
                log.warning("container not stopped yet", id=container.id, error=str(error))
            with trio.move_on_after(delay):
                await container.exited.wait()

    async def explain(self, container: Container, ended: Exit) -> Exit:
        """The exit, with its reason when the container was stopped for what it called."""
        if container.record.seccomp_mode != NotifyMode.STOP or ended.code != _KILLED_CODE or ended.oom_killed:
            return ended
        report = self._layout.seccomp_report(container.id)
        try:
            calls = await trio.to_thread.run_sync(read_report, report)
        except Exception as error:  # an exit without its reason is better than none
            log.warning("report of blocked system calls not read", id=container.id, error=str(error))
            return ended
        if not calls:
            return ended
        names = ", ".join(sorted(calls))
        return replace(ended, reason=STOPPED_REASON, message=f"used forbidden system calls: {names}")

    # recordings

    async def recording(self, container: Container) -> Recording | None:
        """What a container that is, or was, recorded has called; None for others."""
        if container.record.seccomp_mode != NotifyMode.RECORD:
            return None

        def read() -> tuple[dict[str, int], dict[str, Any]] | None:
            report = self._layout.seccomp_report(container.id)
            with suppress(OSError, ValueError, KeyError):
                spec = json.loads((container.ref.bundle / "config.json").read_bytes())
                return read_report(report), spec["linux"]["seccomp"]
            return None

        found = await trio.to_thread.run_sync(read)
        if found is None:
            return None
        calls, seccomp = found
        key = container.record.key
        return Recording(container.id, key.name, key.attempt, calls, minimal(seccomp, calls))

    # wishes: recordings that begin with a container's next start

    async def wish(self, sandbox_id: str, names: set[str]) -> None:
        """Have the next start of these containers of a pod recorded. It goes with the pod."""

        def write() -> None:
            path = self._layout.seccomp_wish(sandbox_id)
            wanted = sorted(names | _wishes(path))
            files.publish(path, json.dumps(wanted).encode(), 0o600, durable=False)

        await trio.to_thread.run_sync(write)

    def wished(self, sandbox_id: str, name: str) -> bool:
        """Whether a container's next start is to be recorded."""
        return name in _wishes(self._layout.seccomp_wish(sandbox_id))

    async def fulfilled(self, sandbox_id: str, name: str) -> None:
        """A recorded container was created: the start after this one is an ordinary one."""

        def write() -> None:
            path = self._layout.seccomp_wish(sandbox_id)
            left = _wishes(path) - {name}
            if left:
                files.publish(path, json.dumps(sorted(left)).encode(), 0o600, durable=False)
            else:
                path.unlink(missing_ok=True)

        await trio.to_thread.run_sync(write)


@dataclass(slots=True)
class _Watched:
    container: Container
    told: Mapping[str, int] | None = None  # what was counted and logged, by this daemon or one before it
    stopping: bool = False
    retried: bool = False  # reading its report has failed, and is tried again
    one_look: trio.Lock = field(default_factory=trio.Lock)


def check_mode(mode: NotifyMode | None, handler: str, able: bool) -> None:
    """Refuse what a runtime cannot do. Raises: FailedPrecondition."""
    if mode is not None and not able:
        raise FailedPrecondition(
            f"runtime handler {handler!r} cannot tell of system calls (OCI linux.seccomp.listenerPath): "
            "remove the seccomp annotation or use runc 1.1, crun 0.19 or newer on Linux 5.5 or newer"
        )


def _wishes(path: Path) -> set[str]:
    try:
        return set(json.loads(path.read_bytes()))
    except (OSError, ValueError):
        return set()
