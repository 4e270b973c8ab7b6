"""What the edge needs of the core: the doors that the engine opens.

Coroutines here run in trio and are called through the `Bridge`; plain functions answer from memory
and are called directly in the asyncio loop, which is the same thread.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from noded.engine.events import LifeEvent
from noded.engine.samples import ContainerSample, Filesystem, PodDetail, PodSample
from noded.engine.seccomp_notifier import Recording
from noded.images.disk_usage import ImageUsage
from noded.images.progress import PullProgress
from noded.images.repair import Verdict
from noded.model.container import ContainerConfig
from noded.model.image import Credential, FilesystemInfo, Image
from noded.model.network import NetworkStatus
from noded.model.pod import PodConfig, Resources
from noded.model.runtime import ExecResult, ExecStream, RuntimeFeatures
from noded.model.timeline import Timeline
from noded.model.views import ContainerView, SandboxView

T = TypeVar("T")


class Identified(Protocol):
    """A view or image: `id` is constant, the object is replaced when anything changes."""

    @property
    def id(self) -> str: ...


class Bridge(Protocol):
    """Carries a call from the asyncio edge into the trio core."""

    async def call(
        self,
        fn: Callable[..., Awaitable[T]],
        /,
        *args: Any,
        deadline_seconds: float | None = None,
        detach: bool = False,
    ) -> T:
        """Run `fn(*args)` in the core and return its result.

        Raises: what `fn` raises; DeadlineExceeded naming the stage when `deadline_seconds` pass,
            after which the operation is cancelled, or goes on without us when `detach`;
            Unavailable when the core has stopped.
        Cancellation: cancels the operation and waits for it to unwind.
        """
        ...


class Sandboxes(Protocol):
    """Pod sandboxes."""

    async def run(self, config: PodConfig, handler: str, request: bytes) -> str:
        """Create a sandbox, or join its creation; return its id. `handler` "" = the default one."""
        ...

    async def stop(self, id: str) -> None: ...

    async def remove(self, id: str) -> None: ...

    async def update_resources(
        self,
        id: str,
        overhead: Resources | None,
        resources: Resources | None,
    ) -> None: ...

    def view(self, id_or_prefix: str) -> SandboxView:
        """Raises: NotFound."""
        ...

    def peek(self, identity: str) -> SandboxView:
        """By full id, also while it is being created. Raises: NotFound."""
        ...

    def views(self) -> Collection[SandboxView]: ...


class Containers(Protocol):
    """Containers."""

    async def create(self, sandbox_id: str, config: ContainerConfig, request: bytes) -> str: ...

    async def start(self, id: str) -> None: ...

    async def stop(self, id: str, timeout_seconds: float) -> None: ...

    async def remove(self, id: str) -> None: ...

    def view(self, id_or_prefix: str) -> ContainerView:
        """Raises: NotFound."""
        ...

    def peek(self, identity: str) -> ContainerView:
        """By full id, also while it is being created. Raises: NotFound."""
        ...

    def views(self) -> Collection[ContainerView]: ...


class RunningContainers(Protocol):
    """What is done to containers that run."""

    async def update(self, id: str, resources: Resources, annotations: Mapping[str, str]) -> None: ...

    async def reopen_log(self, id: str) -> None: ...

    async def exec_sync(
        self,
        id: str,
        command: tuple[str, ...],
        timeout_seconds: float | None,
    ) -> ExecResult: ...


class Checkpoints(Protocol):
    """Containers saved in archives."""

    async def checkpoint(self, id: str, location: str, timeout_seconds: float) -> None: ...


class SeccompRecordings(Protocol):
    """What containers call."""

    async def of(self, pod: str, name: str, *, wish: bool) -> tuple[Sequence[Recording], Sequence[str]]:
        """Recordings of a pod's containers, and names of those that have none yet."""
        ...


class Explain(Protocol):
    """Where the fields of specs come from."""

    async def of(self, name: str) -> dict[str, Any]:
        """The explanation of a container, JSON-ready."""
        ...


class Streams(Protocol):
    """Commands, attachments and connections whose bytes the edge carries.

    `adopt` is given what was opened; from then on it is the edge's to close.
    """

    async def exec(
        self,
        id: str,
        command: tuple[str, ...],
        terminal: bool,
        stdin: bool,
        adopt: Callable[[ExecStream], None],
    ) -> None: ...

    async def attach(self, id: str, adopt: Callable[[socket.socket], None]) -> None: ...

    async def resize(self, id: str, width: int, height: int) -> None: ...

    async def connect(self, sandbox_id: str, port: int, adopt: Callable[[socket.socket], None]) -> bool: ...


class Images(Protocol):
    """The local image store."""

    def get(self, reference: str) -> Image | None:
        """An image by id, unique prefix of an id, or reference."""
        ...

    def list(self) -> Collection[Image]: ...

    async def pull(self, reference: str, credential: Credential | None, namespace: str) -> str:
        """Return the image ID."""
        ...

    async def remove(self, reference: str) -> None: ...

    async def fs_info(self) -> FilesystemInfo: ...

    def pulls(self) -> Sequence[PullProgress]:
        """All pulls that run now."""
        ...

    async def usages(self) -> Sequence[ImageUsage]: ...

    async def verify(self, references: Sequence[str], *, deep: bool) -> Sequence[Verdict]: ...

    async def load(self, path: str) -> Sequence[Image]: ...

    async def save(self, references: Sequence[str], path: str, format: str) -> None:
        """`format` is "oci" or "docker"."""
        ...


class Stats(Protocol):
    """Samples of what is in use."""

    @property
    def mount_point(self) -> str:
        """Where the writable layers are, as ImageFsInfo names it."""
        ...

    async def containers(self, views: Collection[ContainerView]) -> Sequence[ContainerSample]: ...

    async def pods(self, views: Collection[SandboxView]) -> Sequence[PodSample]: ...

    async def details(
        self, views: Collection[SandboxView]
    ) -> tuple[Sequence[PodDetail], Filesystem | None]: ...


class Subscription(Protocol):
    """The receiving end of events."""

    def take(self) -> LifeEvent | None:
        """The next one, None when there is none yet. Raises: Aborted when events were lost."""
        ...


class Events(Protocol):
    """What happens to pods and containers."""

    def subscribe(self, wake: Callable[[], None]) -> Subscription:
        """Follow events; `wake` is called in this thread. Raises: ResourceExhausted."""
        ...

    def unsubscribe(self, subscription: Any) -> None: ...


class Condition(Protocol):
    """One health statement of the runtime."""

    @property
    def type(self) -> str: ...

    @property
    def status(self) -> bool: ...

    @property
    def reason(self) -> str: ...

    @property
    def message(self) -> str: ...


class Debt(Protocol):
    """A teardown that failed and is retried."""

    @property
    def id(self) -> str: ...

    @property
    def kind(self) -> str: ...

    @property
    def subject(self) -> str: ...

    @property
    def since_ns(self) -> int: ...

    @property
    def tries(self) -> int: ...

    @property
    def last_error(self) -> str: ...

    @property
    def next_try_ns(self) -> int: ...


class Node(Protocol):
    """The node as a whole."""

    @property
    def default_handler(self) -> str: ...

    @property
    def cgroup_driver(self) -> str:
        """`cgroupfs` or `systemd`."""
        ...

    def runtime_conditions(self) -> Sequence[Condition]:
        """RuntimeReady first, then any others but NetworkReady."""
        ...

    def network_status(self) -> NetworkStatus: ...

    def when_handlers_are_known(self, tell: Callable[[], None]) -> None:
        """Call `tell` once it is known what the handlers can do, in place when it is."""
        ...

    def handlers(self) -> Sequence[tuple[str, RuntimeFeatures]]:
        """The handlers that pods may name, without the unavailable ones."""
        ...

    def info(self) -> Mapping[str, Any]:
        """JSON-able details for people."""
        ...

    async def update_pod_cidr(self, cidrs: str) -> None: ...

    def debts(self) -> Sequence[Debt]: ...

    async def forgive(self, id: str) -> str: ...


class Timelines(Protocol):
    """Where the time of pods went."""

    async def find(self, wanted: str, last: int) -> Sequence[Timeline]: ...


class Core(Protocol):
    """All doors together."""

    @property
    def sandboxes(self) -> Sandboxes: ...

    @property
    def containers(self) -> Containers: ...

    @property
    def running(self) -> RunningContainers: ...

    @property
    def checkpoints(self) -> Checkpoints: ...

    @property
    def timelines(self) -> Timelines: ...

    @property
    def recordings(self) -> SeccompRecordings: ...

    @property
    def explain(self) -> Explain: ...

    @property
    def images(self) -> Images: ...

    @property
    def node(self) -> Node: ...

    @property
    def stats(self) -> Stats: ...

    @property
    def events(self) -> Events: ...
