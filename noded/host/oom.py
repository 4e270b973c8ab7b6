"""Out-of-memory kills in cgroups, as they happen.

v2: one inotify instance watches every memory.events. v1: one eventfd per cgroup, registered in
cgroup.event_control (cgroup-v1/memory.rst §9), all in one epoll. The v1 notification comes *before*
the kill, and also when the cgroup is removed; so it only says "look", and the counter of kills is
what counts. `kills` reads it: ask once more after a container's exit, before its cgroup is removed,
for afterwards it cannot be read.
"""

from __future__ import annotations

import os
import select
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import trio

from noded.errors import NotFound, Unimplemented
from noded.host import libc
from noded.host.cgroups import Cgroups
from noded.host.inotify import IN_MODIFY, IN_Q_OVERFLOW, Inotify
from noded.model.host import CgroupMode

# The v1 counter follows its notification within the kernel's choice of a victim. Nothing announces
# it, so look again after these pauses, then leave it to the next notification or `kills`.
_V1_LOOK_AGAIN_SECONDS = (0.005, 0.02, 0.1, 0.5)


@dataclass(slots=True)
class _Watched:
    place: str
    handle: int  # inotify watch (v2) or eventfd (v1)
    kills: int = 0  # last value read; stays when the cgroup goes
    reported: int = 0


class OomWatcher:
    """Watches any number of cgroups with one task: the one that calls `wait`."""

    def __init__(self, cgroups: Cgroups) -> None:
        self._cgroups = cgroups
        self._v2 = cgroups.mode is CgroupMode.V2
        self._watched: dict[str, _Watched] = {}
        self._by_handle: dict[int, str] = {}
        self._look_again: dict[str, int] = {}
        self._inotify = Inotify() if self._v2 else None
        self._epoll = None if self._v2 else select.epoll()

    def add(self, container_id: str, place: str) -> None:
        """Watch a cgroup; before its first process starts, no kill is missed. Idempotent.

        Kills that happened already are counted, and reported by `wait`.

        Raises: NotFound when the cgroup does not exist; Unimplemented without a memory controller.
        """
        if container_id in self._watched:
            return
        path = self._cgroups.memory_events_path(place)
        if path is None:
            raise Unimplemented("this node has no memory cgroup controller: OOM kills cannot be seen")
        handle = self._watch(path)
        self._watched[container_id] = _Watched(place, handle)
        self._by_handle[handle] = container_id
        if self._cgroups.oom_kills(place):
            self._look_again[container_id] = 0

    def kills(self, container_id: str) -> int:
        """Return the number of processes killed so far; the last known one when the cgroup is gone."""
        watched = self._watched.get(container_id)
        if watched is None:
            return 0
        count = self._cgroups.oom_kills(watched.place)
        if count is not None:
            watched.kills = max(watched.kills, count)
        return watched.kills

    def remove(self, container_id: str) -> None:
        """Stop watching; forget its count. Idempotent."""
        watched = self._watched.pop(container_id, None)
        if watched is None:
            return
        self._look_again.pop(container_id, None)
        self._by_handle.pop(watched.handle, None)
        if self._inotify is not None:
            self._inotify.unwatch(watched.handle)
        else:
            self._forget_eventfd(watched.handle)

    async def wait(self) -> list[str]:
        """Return the ids of containers whose count has grown since it was last returned. One caller.

        Raises: trio.ClosedResourceError when `close` is called. Cancellation: loses nothing.
        """
        while True:
            grown = []
            for container_id in await self._suspects():
                count = self.kills(container_id)
                watched = self._watched[container_id]
                if count > watched.reported:
                    watched.reported = count
                    self._look_again.pop(container_id, None)
                    grown.append(container_id)
            if grown:
                return grown

    def close(self) -> None:
        """Stop watching everything. Idempotent."""
        for container_id in list(self._watched):
            self.remove(container_id)
        if self._inotify is not None:
            self._inotify.close()
        if self._epoll is not None and not self._epoll.closed:
            with suppress(RuntimeError):  # outside trio nobody can be waiting
                trio.lowlevel.notify_closing(self._epoll)
            self._epoll.close()

    async def _suspects(self) -> list[str]:
        """Wait until some counters should be read; return whose."""
        pause = min((_V1_LOOK_AGAIN_SECONDS[n] for n in self._look_again.values()), default=float("inf"))
        with trio.move_on_after(pause):
            return self._known(
                await self._inotify_handles() if self._inotify else await self._epoll_handles()
            )
        due = list(self._look_again)
        for container_id in due:
            self._look_again[container_id] += 1
            if self._look_again[container_id] >= len(_V1_LOOK_AGAIN_SECONDS):
                del self._look_again[container_id]
        return due

    def _known(self, handles: list[int]) -> list[str]:
        if -1 in handles:  # events were lost
            return list(self._watched)
        ids = [self._by_handle[handle] for handle in dict.fromkeys(handles) if handle in self._by_handle]
        if not self._v2:
            self._look_again.update(dict.fromkeys(ids, 0))
        return ids

    async def _inotify_handles(self) -> list[int]:
        assert self._inotify is not None
        return [-1 if e.mask & IN_Q_OVERFLOW else e.wd for e in await self._inotify.read()]

    async def _epoll_handles(self) -> list[int]:
        assert self._epoll is not None
        if self._epoll.closed:
            raise trio.ClosedResourceError
        await trio.lowlevel.wait_readable(self._epoll)
        handles = []
        for fd, _ in self._epoll.poll(0):
            with suppress(BlockingIOError):
                os.eventfd_read(fd)
            handles.append(fd)
        return handles

    def _watch(self, path: Path) -> int:
        if self._inotify is not None:
            return self._inotify.watch(path, IN_MODIFY)
        assert self._epoll is not None
        eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        try:
            control = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                (path.parent / "cgroup.event_control").write_text(f"{eventfd} {control}")
            finally:
                os.close(control)
            self._epoll.register(eventfd, select.EPOLLIN)
        except FileNotFoundError:
            os.close(eventfd)
            raise NotFound(f"cannot watch {path}: no such cgroup") from None
        except OSError as error:
            os.close(eventfd)
            raise libc.os_error(error, f"cannot watch {path} for OOM kills") from None
        return eventfd

    def _forget_eventfd(self, eventfd: int) -> None:
        assert self._epoll is not None
        self._epoll.unregister(eventfd)
        os.close(eventfd)
