"""A core that remembers what it was asked, and a bridge that runs it in the asyncio loop."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any

from noded.engine.events import Events
from noded.engine.samples import ContainerSample, PodDetail, PodSample
from noded.errors import DeadlineExceeded, NotFound
from noded.model.container import ContainerConfig
from noded.model.image import FilesystemInfo, Image, ImageConfig, Usage
from noded.model.network import NetworkStatus
from noded.model.pod import PodConfig, SandboxKey
from noded.model.runtime import ExecResult, RuntimeFeatures
from noded.model.states import ContainerState, SandboxState
from noded.model.views import ContainerView, SandboxView


def sandbox(number=1, **changes):
    config = PodConfig(key=SandboxKey("ns", f"pod{number}", f"uid{number}", 0), labels={"app": f"a{number}"})
    view = SandboxView(
        id=f"{number:02x}" * 32,
        config=config,
        handler="runc",
        state=SandboxState.READY,
        created_at_ns=number,
        ips=(f"10.0.0.{number}", "fd00::1"),
        pid=100 + number,
        info=(("netns", "/run/netns/x"),),
    )
    return replace(view, **changes)


def container(number=1, pod=1, **changes):
    config = ContainerConfig(
        name=f"c{number}",
        attempt=0,
        image="sha256:" + "ab" * 32,
        user_specified_image="docker.io/library/busybox:1",
        labels={"app": f"a{number}", "tier": "front"},
    )
    view = ContainerView(
        id=f"{number:02x}" * 32,
        sandbox_id=f"{pod:02x}" * 32,
        config=config,
        state=ContainerState.RUNNING,
        created_at_ns=number,
        image_id="sha256:" + "ab" * 32,
        log_path="/var/log/pods/x/0.log",
    )
    return replace(view, **changes)


def image(number=1, **changes):
    value = Image(
        id="sha256:" + f"{number:02x}" * 32,
        manifest_digest="sha256:" + "ee" * 32,
        tags=(f"docker.io/library/image:{number}",),
        digests=(f"docker.io/library/image@sha256:{'ee' * 32}",),
        size_bytes=1000 + number,
        layers=(),
        config=ImageConfig(env=("A=b",), user="1000:1000"),
    )
    return replace(value, **changes)


@dataclass
class Asked:
    """One call through the bridge."""

    name: str
    args: tuple
    deadline_seconds: float | None
    detach: bool


class FakeBridge:
    """The contract of `Bridge.call` with asyncio tasks in place of the trio core."""

    def __init__(self):
        self.asked: list[Asked] = []
        self._more = asyncio.Event()

    async def was_asked(self, times):
        while len(self.asked) < times:
            self._more.clear()
            await self._more.wait()

    async def call(self, fn, /, *args, deadline_seconds=None, detach=False):
        self.asked.append(Asked(fn.__name__, args, deadline_seconds, detach))
        self._more.set()
        task = asyncio.ensure_future(fn(*args))
        try:
            done, _ = await asyncio.wait({task}, timeout=deadline_seconds)
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait({task})
            raise
        if done:
            return task.result()
        if not detach:
            task.cancel()
            await asyncio.wait({task})
        raise DeadlineExceeded(f"the deadline passed while {fn.__name__} was at stage network")


@dataclass
class Sink:
    """Answers every coroutine with a fixed value, or raises, or waits until released."""

    results: dict[str, Any] = field(default_factory=dict)
    error: BaseException | None = None
    gate: asyncio.Event | None = None
    entered: asyncio.Event | None = None
    left: asyncio.Event | None = None
    cancelled: list[str] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)

    def hold(self):
        """Make operations wait until `gate` is set; `entered` and `left` tell what they do."""
        self.gate, self.entered, self.left = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def answer(self, name):
        if self.entered is not None:
            self.entered.set()
        try:
            if self.gate is not None:
                await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled.append(name)
            self.left.set()
            raise
        if self.error is not None:
            raise self.error
        self.finished.append(name)
        return self.results.get(name)


class Door:
    """Turns every attribute that is not defined into a coroutine that asks the sink."""

    operations: tuple[str, ...] = ()

    def __init__(self, sink):
        self._sink = sink

    def __getattr__(self, name):
        if name not in self.operations:
            raise AttributeError(name)

        async def operation(*args):
            return await self._sink.answer(name)

        operation.__name__ = name
        return operation


class Viewed(Door):
    def __init__(self, sink, views):
        super().__init__(sink)
        self.all = {view.id: view for view in views}

    def view(self, id_or_prefix):
        found = [view for view in self.all.values() if view.id.startswith(id_or_prefix)]
        if len(found) != 1:
            raise NotFound(f"no such object {id_or_prefix!r}")
        return found[0]

    def views(self):
        return self.all.values()


class FakeSandboxes(Viewed):
    operations = ("run", "stop", "remove", "update_resources")


class FakeContainers(Viewed):
    operations = ("create", "start", "stop", "remove")


class FakeRunning(Door):
    operations = ("update", "reopen_log", "exec_sync")


class FakeImages(Door):
    operations = ("pull", "remove", "fs_info", "load", "save")

    def __init__(self, sink, images):
        super().__init__(sink)
        self.all = {image.id: image for image in images}

    def get(self, reference):
        for candidate in self.all.values():
            if reference in (candidate.id, *candidate.tags, *candidate.digests):
                return candidate
        return None

    def list(self):
        return self.all.values()


@dataclass
class Condition:
    type: str
    status: bool
    reason: str = ""
    message: str = ""


@dataclass
class Debt:
    id: str
    kind: str
    subject: str
    since_ns: int
    tries: int
    last_error: str
    next_try_ns: int


class FakeNode(Door):
    operations = ("update_pod_cidr", "forgive")
    default_handler = "runc"
    cgroup_driver = "cgroupfs"

    def __init__(self, sink):
        super().__init__(sink)
        self.known = True
        self.owed = [
            Debt("d2", "cni-del", "ns/b", 20, 3, "no plugin", 0),
            Debt("d1", "cni-del", "ns/a", 10, 1, "x", 70),
        ]

    def runtime_conditions(self):
        return [Condition("RuntimeReady", True)]

    def network_status(self):
        return NetworkStatus(False, "NoNetworkConfig", "no file in /etc/cni/net.d")

    def when_handlers_are_known(self, tell):
        self.told_when_known = tell
        if self.known:
            tell()

    def handlers(self):
        return [
            ("runc", RuntimeFeatures(recursive_read_only_mounts=True, user_namespaces=True)),
            ("kata", RuntimeFeatures()),
        ]

    def info(self):
        return {"root": "/var/lib/noded"}

    def debts(self):
        return self.owed


class FakeStats:
    """Knows no numbers: every object has attributes only."""

    mount_point = "/var/lib/noded"

    async def containers(self, views):
        return [ContainerSample(view) for view in views]

    async def pods(self, views):
        return [PodSample(view, 1) for view in views]

    async def details(self, views):
        return [PodDetail(view, "", 1, None, None, ()) for view in views], None


class FakeCheckpoints:
    def __init__(self, sink):
        self.sink = sink

    async def checkpoint(self, identity, location, timeout_seconds):
        await self.sink.answer("checkpoint")


class FakeCore:
    def __init__(self, sandboxes=(), containers=(), images=()):
        usage = Usage("/var/lib/noded", 123, 45, 678)
        self.sink = Sink(
            {
                "run": "f0" * 32,
                "create": "f1" * 32,
                "pull": "sha256:" + "f2" * 32,
                "exec_sync": ExecResult(3, b"out\xff", b"err"),
                "fs_info": FilesystemInfo(usage, usage),
                "load": [image(7)],
            }
        )
        self.sandboxes = FakeSandboxes(self.sink, sandboxes)
        self.containers = FakeContainers(self.sink, containers)
        self.running = FakeRunning(self.sink)
        self.checkpoints = FakeCheckpoints(self.sink)
        self.recordings = None
        self.timelines = None
        self.explain = None
        self.images = FakeImages(self.sink, images)
        self.node = FakeNode(self.sink)
        self.stats = FakeStats()
        self.events = Events(
            lambda sandbox_id: [one for one in self.containers.views() if one.sandbox_id == sandbox_id]
        )
