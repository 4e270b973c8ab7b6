"""What an operator asks of recordings: those of a pod, and that a container be recorded."""

from __future__ import annotations

from noded.engine.handlers import Handlers
from noded.engine.registry import Registry
from noded.engine.seccomp_notifier import Recording, SeccompNotifier, check_mode
from noded.errors import NotFound
from noded.spec.seccomp.annotations import NotifyMode


class SeccompRecordings:
    """Recordings by pod."""

    def __init__(self, registry: Registry, handlers: Handlers, notifier: SeccompNotifier) -> None:
        self._registry, self._handlers, self._notifier = registry, handlers, notifier

    async def of(self, pod: str, name: str, *, wish: bool) -> tuple[list[Recording], list[str]]:
        """The recordings of a pod's containers, newest first.

        Args:
            pod: id of a sandbox or a unique start of it.
            name: of one container, "" = all.
            wish: have the next start of those that are not recorded be recorded.

        Returns: recordings, and names of containers whose next start will be recorded.
        Raises: NotFound; FailedPrecondition when the runtime handler cannot.
        """
        sandbox = self._registry.sandbox(pod)
        features = await self._handlers.features_of(sandbox.record.handler)
        check_mode(NotifyMode.RECORD, sandbox.record.handler, features.seccomp_notify)
        containers = [
            one
            for one in self._registry.containers_of(sandbox)
            if one.visible and name in ("", one.record.key.name)
        ]
        if not containers and not name:
            raise NotFound(f"pod {sandbox.id[:12]} has no container yet: name one with --container")
        containers.sort(key=lambda one: one.record.created_at_ns, reverse=True)
        newest: dict[str, Recording] = {}
        for container in containers:
            found = await self._notifier.recording(container)
            if found is not None:
                newest.setdefault(found.name, found)
        missing = {one.record.key.name for one in containers} | ({name} - {""})
        missing -= newest.keys()
        if wish and missing:
            await self._notifier.wish(sandbox.id, missing)
        return list(newest.values()), sorted(missing)
