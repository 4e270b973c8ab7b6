"""What kubelet does with a runtime, in the order and with the checks of its own client.

It keeps pods as kubelet keeps them: what is wanted, and what the last relist saw. Nothing but CRI
calls tell it about the node, so whatever it needs and does not get is a fault of the runtime.
"""

from __future__ import annotations

import errno
import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc

from tests.support.cri_client import Cri

REQUEST_SECONDS = 120.0  # runtimeRequestTimeout
MIN_GRACE_SECONDS = 2
UID_LABEL = "io.kubernetes.pod.uid"
CONTAINER_LABEL = "io.kubernetes.container.name"
RESTARTS = "io.kubernetes.container.restartCount"
TERMINATION_LOG = "/dev/termination-log"


@dataclass(frozen=True)
class Container:
    """A container of a pod's spec."""

    name: str
    image: str
    command: Sequence[str]
    post_start: Sequence[str] = ()
    memory_bytes: int = 0


@dataclass
class Pod:
    """A pod as the API server would have told."""

    containers: list[Container]
    name: str = field(default_factory=lambda: f"pod-{uuid4().hex[:8]}")
    namespace: str = "default"
    uid: str = field(default_factory=lambda: str(uuid4()))
    host_network: bool = False
    restart: bool = True  # restartPolicy Always or Never
    handler: str = ""


@dataclass(frozen=True)
class Change:
    """What the life cycle event generator says: STARTED, DIED, REMOVED or CHANGED."""

    kind: str
    uid: str
    id: str


class Kubelet:
    """One kubelet process; `directory` and `log_directory` outlive it, as they do on a node."""

    def __init__(self, cri: Cri, directory: Path, cgroup_parent: str) -> None:
        self.cri, self.pb, self.directory = cri, cri.pb, directory
        self.calls: Counter[str] = Counter()
        self.logs, self.links, self.pods = (directory / name for name in ("pods", "containers", "kubelet"))
        for path in (self.logs, self.links, self.pods):
            path.mkdir(parents=True, exist_ok=True)
        self._cgroup_parent = cgroup_parent
        self._seen: dict[str, tuple[str, str]] = {}  # id -> pod uid, running | exited | unknown

    def call(self, name: str, seconds: float | None = REQUEST_SECONDS, **fields: Any) -> Any:
        """One call with kubelet's deadline; `seconds` None is no deadline."""
        self.calls[name] += 1
        of_images = name.endswith(("Image", "Images", "ImageStatus", "FsInfo"))
        service = self.cri.image if of_images else self.cri.runtime
        message = {"GetContainerEvents": "GetEvents"}.get(name, name)
        return getattr(service, name)(getattr(self.pb, f"{message}Request")(**fields), timeout=seconds)

    # start

    def start(self) -> Any:
        """The calls of a starting kubelet, in order; returns the first Status."""
        assert self.call("Version").runtime_api_version == "v1"
        drivers = {self.call("RuntimeConfig").linux.cgroup_driver for _ in range(3)}
        assert len(drivers) == 1
        typed = self.call("Version", version="0.1.0")
        assert typed.version == "0.1.0"
        assert typed.runtime_name
        assert typed.runtime_version
        status = self.status()
        self.call("UpdateRuntimeConfig", runtime_config={"network_config": {"pod_cidr": "10.88.0.0/24"}})
        self.call("ListPodSandbox")
        self.call("ListContainers")
        self.call("ListImages")
        self.call("ImageFsInfo")
        return status

    def status(self) -> Any:
        answer = self.call("Status")
        assert len(answer.status.conditions) >= 2  # cri-client refuses the answer otherwise
        return answer

    # pod life cycle event generator

    def relist(self) -> list[Change]:
        """One relist: two list calls, then a look at each pod that changed."""
        now: dict[str, tuple[str, str]] = {}
        for sandbox in self.call("ListPodSandbox").items:
            state = "running" if sandbox.state == self.pb.SANDBOX_READY else "exited"
            now[sandbox.id] = (sandbox.metadata.uid, state)
        states = {self.pb.CONTAINER_RUNNING: "running", self.pb.CONTAINER_EXITED: "exited"}
        for container in self.call("ListContainers").containers:
            now[container.id] = (container.labels[UID_LABEL], states.get(container.state, "unknown"))
        changes = [
            Change(kind, uid, one)
            for one, (uid, _) in {**self._seen, **now}.items()
            for kind in _kinds(self._seen.get(one, ("", ""))[1], now.get(one, ("", ""))[1])
        ]
        for uid in {change.uid for change in changes}:
            self.pod_status(uid)
        self._seen = now
        return changes

    def pod_status(self, uid: str) -> tuple[list[Any], list[Any]]:
        """GetPodStatus: (sandbox statuses, container statuses), the newest first."""
        chosen = {"label_selector": {UID_LABEL: uid}}
        listed = sorted(self.call("ListPodSandbox", filter=chosen).items, key=lambda one: -one.created_at)
        sandboxes = [self._sandbox(one.id) for one in listed]
        containers = self.call("ListContainers", filter=chosen).containers
        statuses = [self.container(one.id) for one in containers]
        return [one for one in sandboxes if one is not None], sorted(
            (one for one in statuses if one is not None), key=lambda one: -one.created_at
        )

    def _sandbox(self, sandbox: str) -> Any:
        try:
            status = self.call("PodSandboxStatus", pod_sandbox_id=sandbox).status
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return None
            raise
        assert status.id
        assert status.metadata.name
        assert status.metadata.namespace
        assert status.metadata.uid
        assert status.created_at > 0
        return status

    def container(self, container: str) -> Any:
        """ContainerStatus with the checks of kubelet's client; None when it is gone."""
        try:
            status = self.call("ContainerStatus", container_id=container).status
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return None
            raise
        assert status.id
        assert status.metadata.name
        assert status.created_at > 0
        assert status.image.image
        assert status.image_ref
        assert status.state != self.pb.CONTAINER_UNKNOWN  # kubelet would kill it and make another
        return status

    # pod worker

    def sync(self, pod: Pod) -> None:
        """Bring one pod to what is wanted."""
        sandboxes, statuses = self.pod_status(pod.uid)
        changed, attempt = self._sandbox_changed(pod, sandboxes)
        if changed:
            if sandboxes:
                self.kill(pod)
            self.log_directory(pod).mkdir(mode=0o755, exist_ok=True)
            sandbox = self.call(
                "RunPodSandbox",
                2 * REQUEST_SECONDS,
                config=self.pod_config(pod, attempt),
                runtime_handler=pod.handler,
            ).pod_sandbox_id
            made = self._sandbox(sandbox)
            assert made is not None
            assert made.state == self.pb.SANDBOX_READY
            assert pod.host_network or made.network.ip
        else:
            sandbox, attempt = sandboxes[0].id, sandboxes[0].metadata.attempt
        for wanted in pod.containers:
            mine = [one for one in statuses if one.metadata.name == wanted.name]
            alive = mine and mine[0].state == self.pb.CONTAINER_RUNNING and not changed
            if alive or (mine and not pod.restart):
                continue
            self.start_container(pod, wanted, sandbox, attempt, self._restarts(pod, wanted, mine))

    def _sandbox_changed(self, pod: Pod, sandboxes: list[Any]) -> tuple[bool, int]:
        if not sandboxes:
            return True, 0
        newest = sandboxes[0]
        ready = [one for one in sandboxes if one.state == self.pb.SANDBOX_READY]
        wanted = self.pb.NODE if pod.host_network else self.pb.POD
        if (
            len(ready) > 1
            or newest.state != self.pb.SANDBOX_READY
            or newest.linux.namespaces.options.network != wanted
            or (not pod.host_network and newest.HasField("network") and not newest.network.ip)
        ):
            return True, newest.metadata.attempt + 1
        return False, newest.metadata.attempt

    def _restarts(self, pod: Pod, wanted: Container, mine: list[Any]) -> int:
        if mine:
            return int(mine[0].annotations[RESTARTS]) + 1
        directory = self.log_directory(pod) / wanted.name
        logs = [int(path.name.split(".")[0]) for path in directory.glob("*.log*")]
        return max(logs, default=-1) + 1

    def start_container(
        self, pod: Pod, wanted: Container, sandbox: str, sandbox_attempt: int, attempt: int
    ) -> str:
        """EnsureImageExists, CreateContainer, StartContainer, the log's link, postStart."""
        image = self.ensure_image(wanted.image)
        (self.log_directory(pod) / wanted.name).mkdir(mode=0o755, exist_ok=True)
        container = self.call(
            "CreateContainer",
            pod_sandbox_id=sandbox,
            config=self.container_config(pod, wanted, image, attempt),
            sandbox_config=self.pod_config(pod, sandbox_attempt),
        ).container_id
        self.call("StartContainer", container_id=container)
        log = self.log_directory(pod) / wanted.name / f"{attempt}.log"
        if log.exists():
            self.link(pod, wanted.name, container).symlink_to(log)
        if wanted.post_start:
            # Without a deadline: hooks have none of their own.
            self.call("ExecSync", None, container_id=container, cmd=list(wanted.post_start))
        return str(container)

    def ensure_image(self, reference: str) -> str:
        """IfNotPresent; returns the id."""
        image = self.call("ImageStatus", image={"image": reference}).image
        if not image.id:
            pulled = self.call("PullImage", None, image={"image": reference}).image_ref
            image = self.call("ImageStatus", image={"image": pulled}).image
            assert image.id == pulled
        assert image.size > 0
        return str(image.id)

    def kill(self, pod: Pod, grace_seconds: int = MIN_GRACE_SECONDS) -> None:
        """killPod: all containers at once, then every sandbox."""
        sandboxes, statuses = self.pod_status(pod.uid)
        running = [one.id for one in statuses if one.state == self.pb.CONTAINER_RUNNING]
        with ThreadPoolExecutor(max(1, len(running))) as threads:
            list(threads.map(lambda one: self.stop(one, grace_seconds), running))
        for sandbox in sandboxes:
            self.call("StopPodSandbox", pod_sandbox_id=sandbox.id)

    def stop(self, container: str, grace_seconds: int = MIN_GRACE_SECONDS) -> None:
        grace = max(grace_seconds, MIN_GRACE_SECONDS)
        self.call("StopContainer", REQUEST_SECONDS + grace, container_id=container, timeout=grace)

    def delete(self, pod: Pod) -> None:
        """The end of a pod: killed, its cgroup removed, then collected with its logs."""
        self.kill(pod)
        self._remove_cgroups(pod)
        sandboxes, statuses = self.pod_status(pod.uid)
        for container in statuses:
            self.remove_container(container.id)
        for sandbox in sandboxes:
            self.call("StopPodSandbox", pod_sandbox_id=sandbox.id)
            self.call("RemovePodSandbox", pod_sandbox_id=sandbox.id)

    def _remove_cgroups(self, pod: Pod) -> None:
        """The pod's own cgroups, in every hierarchy: nothing of a stopped pod may live in them."""
        name = self.pod_config(pod, 0).linux.cgroup_parent.strip("/")
        deadline = time.monotonic() + 10
        for top in (*Path("/sys/fs/cgroup").glob(f"*/{name}"), Path("/sys/fs/cgroup") / name):
            inside = [path for path in top.rglob("*") if path.is_dir()] if top.is_dir() else []
            for path in (*sorted(inside, reverse=True), top):
                while not _removed(path):  # the last members may be dying: kubelet comes again too
                    assert time.monotonic() < deadline, f"{path} has {(path / 'cgroup.procs').read_text()!r}"
                    time.sleep(0.02)

    # garbage

    def remove_container(self, container: str) -> None:
        """RemoveContainer; kubelet, not the runtime, deletes log and link."""
        status = self.container(container)
        self.call("RemoveContainer", container_id=container)
        if status is not None:
            Path(status.log_path).unlink(missing_ok=True)
            for link in self.links.glob(f"*{container}.log"):
                link.unlink()

    def collect_containers(self) -> list[str]:
        """All but the newest dead one of each container of each pod."""
        newest: Counter[tuple[str, str]] = Counter()
        removed = []
        for one in sorted(self.call("ListContainers").containers, key=lambda one: -one.created_at):
            if one.state == self.pb.CONTAINER_EXITED:
                key = one.labels[UID_LABEL], one.metadata.name
                newest[key] += 1
                if newest[key] > 1:
                    self.remove_container(one.id)
                    removed.append(one.id)
        return removed

    def collect_images(self, keep: Iterable[str] = ()) -> list[str]:
        """Every image that no container uses and nobody pinned."""
        used = {one.image_id for one in self.call("ListContainers").containers} | set(keep)
        unused = [
            image.id for image in self.call("ListImages").images if image.id not in used and not image.pinned
        ]
        for image in unused:
            self.call("RemoveImage", image={"image": image})
        return unused

    def rotate(self, container: str, stamp: str) -> Path:
        """Rename the log, have it reopened; renamed back when that fails."""
        log = Path(self.container(container).log_path)
        rotated = log.with_name(f"{log.name}.{stamp}")
        log.rename(rotated)
        try:
            self.call("ReopenContainerLog", container_id=container)
        except grpc.RpcError:
            rotated.rename(log)
            raise
        return rotated

    # values

    def log_directory(self, pod: Pod) -> Path:
        return self.logs / f"{pod.namespace}_{pod.name}_{pod.uid}"

    def link(self, pod: Pod, name: str, container: str) -> Path:
        return self.links / f"{pod.name}_{pod.namespace}_{name}-{container}.log"

    def newest(self, pod: Pod, name: str = "main") -> Any:
        """Status of the newest container of that name."""
        return next(one for one in self.pod_status(pod.uid)[1] if one.metadata.name == name)

    def pod_config(self, pod: Pod, attempt: int) -> Any:
        config = self.cri.pod_config(
            pod.name,
            namespace=pod.namespace,
            uid=pod.uid,
            attempt=attempt,
            log_directory=self.log_directory(pod),
            cgroup_parent=f"{self._cgroup_parent}/kubepods/pod{pod.uid}",
            network="NODE" if pod.host_network else "POD",
            labels={
                "app": "test",
                "io.kubernetes.pod.name": pod.name,
                "io.kubernetes.pod.namespace": pod.namespace,
                UID_LABEL: pod.uid,
            },
            annotations={"kubernetes.io/config.source": "api"},
        )
        config.linux.security_context.seccomp.profile_type = self.pb.SecurityProfile.RuntimeDefault
        config.hostname = "" if pod.host_network else pod.name
        return config

    def container_config(self, pod: Pod, wanted: Container, image: str, attempt: int) -> Any:
        messages = self.pods / pod.uid / "containers" / wanted.name
        messages.mkdir(parents=True, exist_ok=True)
        message = messages / os.urandom(4).hex()
        message.touch()
        config = self.cri.container_config(
            wanted.name,
            wanted.image,
            wanted.command,
            attempt=attempt,
            log_path=f"{wanted.name}/{attempt}.log",
            network="NODE" if pod.host_network else "POD",
            memory_bytes=wanted.memory_bytes,
            mounts=[(message, TERMINATION_LOG)],
            labels={
                CONTAINER_LABEL: wanted.name,
                "io.kubernetes.pod.name": pod.name,
                "io.kubernetes.pod.namespace": pod.namespace,
                UID_LABEL: pod.uid,
            },
            annotations={
                "io.kubernetes.container.hash": f"{hash(wanted.name) & 0xFFFFFFFF:x}",
                RESTARTS: str(attempt),
                "io.kubernetes.container.terminationMessagePath": TERMINATION_LOG,
                "io.kubernetes.container.terminationMessagePolicy": "File",
            },
        )
        config.image.image = image
        return config


def _removed(cgroup: Path) -> bool:
    try:
        cgroup.rmdir()
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno == errno.EBUSY:
            return False
        raise
    return True


def _kinds(old: str, new: str) -> tuple[str, ...]:
    """generateEvents of kubelet's generic life cycle event generator."""
    if old == new:
        return ()
    if not new:
        return ("REMOVED",) if old == "exited" else ("DIED", "REMOVED")
    return {"running": ("STARTED",), "exited": ("DIED",), "unknown": ("CHANGED",)}[new]
