"""The objects that exist, by id and by the key that clients retry with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

from noded.engine.container import Container
from noded.engine.sandbox import PodSandbox
from noded.errors import InvalidArgument, NotFound
from noded.model.container import ContainerKey
from noded.model.lifecycle import SandboxIntent
from noded.model.pod import SandboxKey
from noded.model.views import ContainerView, SandboxView

T = TypeVar("T")

_SHORTEST_PREFIX = 4  # shorter ones are typing errors more often than abbreviations


class Registry:
    """In-memory index. A removed object leaves at once, whoever still holds a reference."""

    def __init__(self) -> None:
        self._sandboxes: dict[str, PodSandbox] = {}
        self._containers: dict[str, Container] = {}
        self._sandbox_keys: dict[SandboxKey, PodSandbox] = {}
        self._container_keys: dict[ContainerKey, Container] = {}

    def add_sandbox(self, sandbox: PodSandbox) -> None:
        """Enter a sandbox; one that is a debt lets a new one have its key."""
        self._sandboxes[sandbox.id] = sandbox
        if sandbox.record.intent is not SandboxIntent.OWED:
            self._sandbox_keys[sandbox.record.key] = sandbox

    def free_sandbox_key(self, sandbox: PodSandbox) -> None:
        """Let a new sandbox take the key, while this one lives on as a debt."""
        if self._sandbox_keys.get(sandbox.record.key) is sandbox:
            del self._sandbox_keys[sandbox.record.key]

    def drop_sandbox(self, sandbox: PodSandbox) -> None:
        """Forget a sandbox. Idempotent."""
        self.free_sandbox_key(sandbox)
        self._sandboxes.pop(sandbox.id, None)

    def add_container(self, container: Container) -> None:
        """Enter a container."""
        self._containers[container.id] = container
        self._container_keys[container.record.key] = container

    def drop_container(self, container: Container) -> None:
        """Forget a container. Idempotent."""
        self._containers.pop(container.id, None)
        if self._container_keys.get(container.record.key) is container:
            del self._container_keys[container.record.key]

    def find_sandbox(self, name: str) -> PodSandbox | None:
        """By full id or unique prefix; None when clients must not see it.

        Raises: InvalidArgument for an empty or ambiguous name.
        """
        found = _find(self._sandboxes, name, "pod_sandbox_id")
        return found if found is not None and found.visible else None

    def find_container(self, name: str) -> Container | None:
        """By full id or unique prefix; None when clients must not see it."""
        found = _find(self._containers, name, "container_id")
        return found if found is not None and found.visible else None

    def sandbox(self, name: str) -> PodSandbox:
        """Like `find_sandbox`, but raises NotFound."""
        found = self.find_sandbox(name)
        if found is None:
            raise NotFound(f"pod sandbox {name!r} does not exist")
        found.claim.named = True
        return found

    def container(self, name: str) -> Container:
        """Like `find_container`, but raises NotFound."""
        found = self.find_container(name)
        if found is None:
            raise NotFound(f"container {name!r} does not exist")
        found.claim.named = True
        return found

    def peek_sandbox(self, identity: str) -> SandboxView:
        """The view by full id, of hidden and half-made ones too; no sign that a client knows the id.

        Raises: NotFound.
        """
        return _exact(self._sandboxes, identity, "pod sandbox").view

    def peek_container(self, identity: str) -> ContainerView:
        """The same of a container."""
        return _exact(self._containers, identity, "container").view

    def holds(self, sandbox: PodSandbox) -> bool:
        """Whether this very object is still here, hidden or not."""
        return self._sandboxes.get(sandbox.id) is sandbox

    def next_sandbox_time(self, key: SandboxKey, now_ns: int) -> int:
        """A creation time after that of every sandbox of the same pod, whatever the clock did.

        kubelet takes the newest by created_at for the pod's present one.
        """
        pod = (key.namespace, key.name, key.uid)
        times = [
            one.record.created_at_ns
            for one in self._sandboxes.values()
            if (one.record.key.namespace, one.record.key.name, one.record.key.uid) == pod
        ]
        return max(now_ns, max(times, default=0) + 1)

    def next_container_time(self, sandbox: PodSandbox, name: str, now_ns: int) -> int:
        """The same for the containers of one name in a sandbox."""
        times = [
            one.record.created_at_ns for one in self.containers_of(sandbox) if one.record.key.name == name
        ]
        return max(now_ns, max(times, default=0) + 1)

    def sandbox_of_key(self, key: SandboxKey) -> PodSandbox | None:
        """The sandbox that has this key, half-made ones too."""
        return self._sandbox_keys.get(key)

    def container_of_key(self, key: ContainerKey) -> Container | None:
        """The container that has this key, half-made ones too."""
        return self._container_keys.get(key)

    def sandboxes(self) -> Iterator[PodSandbox]:
        """Every sandbox, hidden ones too."""
        return iter(list(self._sandboxes.values()))

    def selinux_levels(self) -> frozenset[str]:
        """The SELinux levels of every sandbox, hidden ones too."""
        return frozenset(one.record.selinux_level for one in self._sandboxes.values())

    def containers(self) -> Iterator[Container]:
        """Every container, half-made ones too."""
        return iter(list(self._containers.values()))

    def views_of(self, sandbox_id: str) -> list[ContainerView]:
        """The containers of a sandbox that clients may see."""
        return [
            one.view
            for one in self._containers.values()
            if one.record.key.sandbox_id == sandbox_id and one.visible
        ]

    def containers_of(self, sandbox: PodSandbox) -> list[Container]:
        """The containers of a sandbox, half-made ones too."""
        return [one for one in self._containers.values() if one.sandbox is sandbox]


def _exact(objects: Mapping[str, T], identity: str, kind: str) -> T:
    try:
        return objects[identity]
    except KeyError:
        raise NotFound(f"{kind} {identity!r} does not exist") from None


def _find(objects: Mapping[str, T], name: str, field: str) -> T | None:
    if not name:
        raise InvalidArgument(f"{field} is empty: give an id")
    exact = objects.get(name)
    if exact is not None or len(name) < _SHORTEST_PREFIX:
        return exact
    matches = [identity for identity in objects if identity.startswith(name)]
    if len(matches) > 1:
        raise InvalidArgument(f"{field} {name!r} fits {len(matches)} objects: give more characters")
    return objects[matches[0]] if matches else None
