"""Does steps to a real noded as kubelet would, and checks the node against the model after each."""

from __future__ import annotations

import json
import os
import select
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc

from tests.crash.programs import CNI_VERB, DO_AND_DIE, DO_AND_FAIL, FAIL, HANG, NONSENSE, Stand
from tests.crash.small_disk import DaemonOnSmallDisk
from tests.crash.world import HANDLERS, IMAGE, World
from tests.soak import hostile
from tests.soak.model import (
    ABSENT,
    CREATED,
    EXITED,
    NOT_READY,
    READY,
    RUNNING,
    ContainerModel,
    NodeModel,
    PodModel,
)  # fmt: skip
from tests.soak.steps import FAULTS, Step
from tests.support import images
from tests.support.cni import plugin_path

CALL_SECONDS = 60.0
CONVERGE_SECONDS = 45.0
DISK_MEGABYTES = 96
SECOND_IMAGE = "soak.example/second:1"
NOBODY = "0" * 64
_Code = grpc.StatusCode
_NETWORK = {_Code.UNAVAILABLE, _Code.FAILED_PRECONDITION, _Code.DEADLINE_EXCEEDED}
# What noded's log must never have, whatever happens to it.
_DEFECTS = ("defect", "Traceback", "never retrieved", "was never awaited", "Task was destroyed")
_PROGRAMS = {
    "sleep": (["sleep", "100000"], set()),
    "exit": (["/bin/sh", "-c", "exit 7"], {7}),
    "trap": (["/bin/sh", "-c", "trap 'exit 5' TERM; while :; do sleep 100000 & wait; done"], set()),
}


class Refused(AssertionError):
    """The daemon answered otherwise than it must."""


def settings() -> dict[str, Any]:
    """Budgets that a soak can wait for."""
    return {
        "network": {"add_timeout_seconds": 2.0, "del_timeout_seconds": 2.0},
        "drain_seconds": 2.0,
    }


@contextmanager
def open_player(directory: Path, layout: Path) -> Iterator[Player]:
    """A daemon on a small disk, with `layout` loaded, and the one who plays with it."""
    daemon = DaemonOnSmallDisk(directory, DISK_MEGABYTES, settings=settings())
    with World(daemon, layout) as world:
        stand = Stand(daemon.cni_bin_dir / "bridge", plugin_path("bridge"), CNI_VERB)
        second = images.build([images.tar([images.Entry("data", b"second")])])
        player = Player(world, stand, images.write_layout(second, directory / "second", SECOND_IMAGE))
        try:
            yield player
        finally:
            daemon.disk.free()
            stand.heal()
            stand.close()


class Player:
    """Plays episodes: each begins and ends with an empty node."""

    def __init__(self, world: World, bridge: Stand, second: Path) -> None:
        self.world = world
        self.done: Counter[str] = Counter()
        self.codes: Counter[str] = Counter()
        self._disk = world.daemon.disk  # type: ignore[attr-defined]
        self._bridge = bridge
        self._second = second
        self._model = NodeModel.empty()
        self._away, self._back = threading.Event(), threading.Event()
        self._lives = 0
        self._log_at = 0
        # Containers whose create was cancelled, perhaps when it was just complete: pod, name, attempt.
        self._fleeting: set[tuple[str, str, int]] = set()
        self._forgotten: set[tuple[str, str, int]] = set()  # of them, those that an earlier noded made
        self.reached = 0  # number of the step that is being done; after the last, that of taking all down
        self.episodes = 0

    @property
    def faults(self) -> int:
        """How many steps so far were faults."""
        return sum(count for kind, count in self.done.items() if kind in FAULTS)

    def play(self, steps: list[Step], pace: float = 0.0) -> None:
        """Do all steps, then take everything down: the host must be as it was. Raises AssertionError.

        Args:
            pace: steps per second, at most; 0 = as fast as it goes.
        """
        self._model = NodeModel.empty()
        self._warm_up()
        before = self.world.oracle.take()
        for number, step in enumerate(steps):
            self.reached = number
            due = time.monotonic() + (1 / pace if pace else 0.0)
            try:
                self._do(step)
                self.done[step.kind] += 1
                self._check()
            except AssertionError as error:
                raise AssertionError(f"at step {number}, {step}: {error}") from error
            select.select([], [], [], max(0.0, due - time.monotonic()))
        self._leave()
        self._warm_up()
        self.world.assert_unchanged(before)
        self._check_log()
        self.episodes += 1

    def _warm_up(self) -> None:
        """The helper that unpacks layers is started by the first layer, and then stays."""
        self._load_image(Step("load_image"))
        self._remove_image(Step("remove_image"))

    def _leave(self) -> None:
        """Heal what is broken, remove what is there, as kubelet does when a node is drained."""
        self._heal_cni(Step("heal_cni"))
        self._free_disk(Step("free_disk"))
        for pod in self._model.pods:
            self._remove_pod(Step("remove_pod", pod.number))
        self._remove_image(Step("remove_image"))
        self._check()
        self._until(lambda: not self.world.cri.containers(), "no container is left")
        assert self.world.cri.pods() == []
        assert self.world.cri.containers() == []

    def _do(self, step: Step) -> None:
        getattr(self, f"_{step.kind}")(step)

    # calls

    def _call(
        self, method: Any, request: Any, *, seconds: float = CALL_SECONDS
    ) -> tuple[_Code, str, Any, bool]:
        """Code, message and answer; repeated while noded is away. The last: whether an answer was lost."""
        lost = False
        while True:
            life = self._lives
            try:
                answer = method(request, timeout=seconds, wait_for_ready=True)
                self.codes["OK"] += 1
                return _Code.OK, "", answer, lost
            except grpc.RpcError as error:
                if error.code() is _Code.UNAVAILABLE and (self._away.is_set() or life != self._lives):
                    lost = True
                    assert self._back.wait(CALL_SECONDS), "noded did not come back"
                    continue
                self.codes[error.code().name] += 1
                return error.code(), str(error.details()), None, lost

    def _expect(self, step: Step, code: _Code, message: str, allowed: set[_Code]) -> None:
        if code not in allowed:
            names = ", ".join(sorted(one.name for one in allowed))
            raise Refused(f"{step}: {code.name} ({message}), expected {names}")

    # pods

    def _pod_config(self, pod: PodModel) -> Any:
        return self.world.daemon.pod_config(
            self.world.cri,
            f"soak-{pod.number}",
            uid=pod.uid,
            attempt=pod.attempt,
            network="NODE" if pod.host_network else "POD",
            pid="POD" if pod.shares_pids else "CONTAINER",
        )

    def _run_request(self, step: Step) -> Any:
        pod = self._model.pods[step.pod]
        if pod.is_(ABSENT):
            pod.host_network = step.variant % 7 == 0
            pod.shares_pids = step.variant % 3 == 0
            pod.handler = HANDLERS[step.variant % 2]
        pb = self.world.cri.pb
        return pb.RunPodSandboxRequest(config=self._pod_config(pod), runtime_handler=pod.handler)

    def _run_codes(self, pod: PodModel) -> set[_Code]:
        """What RunPodSandbox may answer now."""
        if pod.is_(READY):
            return {_Code.OK}
        if pod.half_made or pod.in_flux:
            return {_Code.OK, _Code.ALREADY_EXISTS, *_NETWORK, _Code.RESOURCE_EXHAUSTED}
        if NOT_READY in pod.may_be:
            return {_Code.ALREADY_EXISTS}
        if self._model.disk_full:
            return {_Code.RESOURCE_EXHAUSTED}
        if self._model.cni_broken in ("ADD", "both") and not pod.host_network:
            return set(_NETWORK)
        return {_Code.OK}

    def _run_pod(self, step: Step) -> None:
        pod = self._model.pods[step.pod]
        self._resolve(pod)
        request = self._run_request(step)
        code, message, answer, lost = self._call(self.world.cri.runtime.RunPodSandbox, request)
        allowed = self._run_codes(pod)
        if lost and self._model.cni_broken in ("DEL", "both") and not pod.host_network:
            allowed |= _NETWORK  # the half-made one of the daemon that was killed is first to be taken down
        self._expect(step, code, message, allowed)
        self._ran(pod, code, answer)

    def _ran(self, pod: PodModel, code: _Code, answer: Any) -> None:
        if code is _Code.OK:
            identity = str(answer.pod_sandbox_id)
            if pod.is_(READY) and pod.identity != identity:
                raise Refused(f"pod {pod.number} is {pod.identity}, but was made again as {identity}")
            pod.identity, pod.may_be = identity, {READY}
            pod.half_made = pod.owing = False
        elif pod.is_(ABSENT) and self._model.cni_broken in ("DEL", "both") and not pod.host_network:
            # Its rollback may have had to stop.
            pod.half_made = pod.owing = True
            pod.may_be = {ABSENT, NOT_READY}

    def _stop_pod(self, step: Step) -> None:
        pod = self._model.pods[step.pod]
        self._resolve(pod)
        request = self.world.cri.pb.StopPodSandboxRequest(pod_sandbox_id=self._pod_id(pod))
        code, message, _, _ = self._call(self.world.cri.runtime.StopPodSandbox, request)
        self._expect(step, code, message, self._down_codes(pod))
        self._stopped(pod, code)

    def _down_codes(self, pod: PodModel) -> set[_Code]:
        broken = self._model.cni_broken in ("DEL", "both") and not pod.host_network
        if broken and (pod.owing or pod.half_made):
            return {_Code.OK, *_NETWORK}  # its DEL may have been done before the plugin broke
        if broken and pod.is_(READY):
            return set(_NETWORK)
        return {_Code.OK}

    def _stopped(self, pod: PodModel, code: _Code) -> None:
        if ABSENT not in pod.may_be:
            pod.stopped()
            pod.owing = code is not _Code.OK

    def _remove_pod(self, step: Step) -> None:
        pod = self._model.pods[step.pod]
        self._resolve(pod)
        pb, runtime = self.world.cri.pb, self.world.cri.runtime
        identity = self._pod_id(pod)
        stop = pb.StopPodSandboxRequest(pod_sandbox_id=identity)
        code, message, _, _ = self._call(runtime.StopPodSandbox, stop)
        self._expect(step, code, message, self._down_codes(pod))
        self._stopped(pod, code)
        if code is not _Code.OK:
            return
        code, message, _, _ = self._call(
            runtime.RemovePodSandbox, pb.RemovePodSandboxRequest(pod_sandbox_id=identity)
        )
        self._expect(step, code, message, {_Code.OK})
        pod.forget()

    def _pod_id(self, pod: PodModel) -> str:
        """Its id, or one that it had, or one that nothing ever had."""
        return pod.identity or (pod.gone_ids[-1] if pod.gone_ids else NOBODY)

    def _resolve(self, pod: PodModel) -> None:
        """A create that was given up must be gone by now, or soon."""
        if not (pod.in_flux or pod.half_made):
            return
        if pod.in_flux:
            self.world.settled()  # the cancel has reached the core: it does not become ready any more
            self._until(
                lambda: self._seen_pod(pod) is None, f"the cancelled create of pod {pod.number} is undone"
            )
            pod.in_flux = pod.forgotten = False
            pod.attempt += 1
            return
        seen = self._seen_pod(pod)
        if seen is None and not pod.owing:
            pod.half_made = False
        pod.identity = seen.id if seen else ""

    def _seen_pod(self, pod: PodModel) -> Any:
        return next((one for one in self.world.cri.pods() if one.metadata.uid == pod.uid), None)

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + CONVERGE_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                raise Refused(f"not within {CONVERGE_SECONDS:g} s: {what}")
            select.select([], [], [], 0.02)

    # containers

    def _container(self, step: Step) -> tuple[PodModel, ContainerModel]:
        pod = self._model.pods[step.pod]
        self._resolve(pod)
        return pod, pod.containers[step.container]

    def _create_request(self, pod: PodModel, container: ContainerModel, step: Step) -> Any:
        if container.may_be == {ABSENT}:
            container.program = tuple(_PROGRAMS)[step.variant % len(_PROGRAMS)]
        main = self.world.cri.container_config(
            container.name,
            IMAGE,
            _PROGRAMS[container.program][0],
            attempt=container.attempt,
            network="NODE" if pod.host_network else "POD",
            pid="POD" if pod.shares_pids else "CONTAINER",
        )
        return self.world.cri.pb.CreateContainerRequest(
            pod_sandbox_id=self._pod_id(pod), config=main, sandbox_config=self._pod_config(pod)
        )

    def _create_codes(self, pod: PodModel, container: ContainerModel) -> set[_Code]:
        if pod.half_made:
            return {_Code.FAILED_PRECONDITION, _Code.NOT_FOUND}
        if pod.is_(ABSENT):
            return {_Code.NOT_FOUND}
        if not pod.is_(READY):
            return {_Code.FAILED_PRECONDITION}
        if container.may_be == {CREATED}:
            return {_Code.OK}
        if container.may_be != {ABSENT}:
            return {_Code.ALREADY_EXISTS}
        return {_Code.RESOURCE_EXHAUSTED} if self._model.disk_full else {_Code.OK}

    def _create(self, step: Step) -> None:
        pod, container = self._container(step)
        request = self._create_request(pod, container, step)
        code, message, answer, _ = self._call(self.world.cri.runtime.CreateContainer, request)
        self._expect(step, code, message, self._create_codes(pod, container))
        self._created(container, code, answer)

    def _created(self, container: ContainerModel, code: _Code, answer: Any) -> None:
        if code is _Code.OK:
            if container.may_be == {CREATED} and container.identity != answer.container_id:
                raise Refused(
                    f"{container.name} is {container.identity}, but was made again as {answer.container_id}"
                )
            container.identity, container.may_be = str(answer.container_id), {CREATED}

    def _container_id(self, container: ContainerModel) -> str:
        return container.identity or (container.gone_ids[-1] if container.gone_ids else NOBODY)

    def _start(self, step: Step) -> None:
        pod, container = self._container(step)
        request = self.world.cri.pb.StartContainerRequest(container_id=self._container_id(container))
        code, message, _, lost = self._call(self.world.cri.runtime.StartContainer, request)
        if container.may_be == {ABSENT}:
            self._expect(step, code, message, {_Code.NOT_FOUND})
        elif container.may_be == {CREATED} and pod.is_(READY):
            # An answer that was lost with noded: a second start is refused, for it runs.
            self._expect(step, code, message, {_Code.OK, *({_Code.FAILED_PRECONDITION} if lost else ())})
            container.codes = set(_PROGRAMS[container.program][1])
            container.may_be = {RUNNING} if not container.codes else {RUNNING, EXITED}
        else:
            self._expect(step, code, message, {_Code.FAILED_PRECONDITION})

    def _stop(self, step: Step) -> None:
        _, container = self._container(step)
        grace = step.variant % 2
        request = self.world.cri.pb.StopContainerRequest(
            container_id=self._container_id(container), timeout=grace
        )
        code, message, _, _ = self._call(self.world.cri.runtime.StopContainer, request)
        self._expect(step, code, message, {_Code.OK})
        if container.may_be == {CREATED}:
            container.may_be, container.codes = {EXITED}, set()
        elif container.may_be != {ABSENT}:
            # 143: the shell has not yet set its trap when the signal comes.
            container.ended(*((137, 143, 5) if grace else (137,)))

    def _remove(self, step: Step) -> None:
        _, container = self._container(step)
        request = self.world.cri.pb.RemoveContainerRequest(container_id=self._container_id(container))
        code, message, _, _ = self._call(self.world.cri.runtime.RemoveContainer, request)
        self._expect(step, code, message, {_Code.OK})
        if container.may_be != {ABSENT}:
            container.forget()

    _COMMANDS = (
        (["echo", "alive"], 0, b"alive\n"),
        (["/bin/sh", "-c", "exit 3"], 3, b""),
        (["/bin/sh", "-c", "head -c 300000 /dev/zero"], 0, bytes(300000)),
        (["/bin/sh", "-c", "sleep 100000 & echo left"], 0, b"left\n"),
    )

    def _exec_request(self, container: ContainerModel, step: Step) -> tuple[Any, int, bytes]:
        command, code, output = self._COMMANDS[step.variant % len(self._COMMANDS)]
        request = self.world.cri.pb.ExecSyncRequest(
            container_id=self._container_id(container), cmd=command, timeout=30
        )
        return request, code, output

    def _exec(self, step: Step) -> None:
        _, container = self._container(step)
        request, code, output = self._exec_request(container, step)
        status, message, answer, _ = self._call(self.world.cri.runtime.ExecSync, request)
        if container.may_be == {RUNNING}:
            self._expect(step, status, message, {_Code.OK})
            if (answer.exit_code, answer.stdout) != (code, output):
                raise Refused(
                    f"{step}: exit code {answer.exit_code}, {len(answer.stdout)} bytes: {answer.stderr!r}"
                )
        elif RUNNING in container.may_be:
            assert status is not _Code.INTERNAL, message
        else:
            missing = container.may_be == {ABSENT}
            self._expect(step, status, message, {_Code.NOT_FOUND if missing else _Code.FAILED_PRECONDITION})

    def _update(self, step: Step) -> None:
        _, container = self._container(step)
        pb = self.world.cri.pb
        request = pb.UpdateContainerResourcesRequest(
            container_id=self._container_id(container),
            linux=pb.LinuxContainerResources(cpu_shares=100 + step.variant % 1000),
        )
        code, message, _, _ = self._call(self.world.cri.runtime.UpdateContainerResources, request)
        self._alive_only(step, container, code, message, {CREATED, RUNNING})

    def _reopen_log(self, step: Step) -> None:
        _, container = self._container(step)
        request = self.world.cri.pb.ReopenContainerLogRequest(container_id=self._container_id(container))
        code, message, _, _ = self._call(self.world.cri.runtime.ReopenContainerLog, request)
        self._alive_only(step, container, code, message, {RUNNING})

    def _alive_only(
        self, step: Step, container: ContainerModel, code: _Code, message: str, states: set[str]
    ) -> None:
        if container.may_be == {ABSENT}:
            self._expect(step, code, message, {_Code.NOT_FOUND})
        elif container.may_be <= states:
            self._expect(step, code, message, {_Code.OK})
        elif container.may_be & states:  # it may be exiting right now
            self._expect(
                step, code, message, {_Code.OK, _Code.FAILED_PRECONDITION, _Code.NOT_FOUND, _Code.UNAVAILABLE}
            )
        else:
            self._expect(step, code, message, {_Code.FAILED_PRECONDITION})

    def _status(self, step: Step) -> None:
        """Everything that only looks."""
        pod, container = self._container(step)
        pb, runtime = self.world.cri.pb, self.world.cri.runtime
        pod_id, container_id = self._pod_id(pod), self._container_id(container)
        asks: tuple[tuple[Any, Any, PodModel | ContainerModel | None], ...] = (
            (runtime.PodSandboxStatus, pb.PodSandboxStatusRequest(pod_sandbox_id=pod_id, verbose=True), pod),
            (runtime.PodSandboxStats, pb.PodSandboxStatsRequest(pod_sandbox_id=pod_id), pod),
            (
                runtime.ContainerStatus,
                pb.ContainerStatusRequest(container_id=container_id, verbose=True),
                container,
            ),
            (runtime.ContainerStats, pb.ContainerStatsRequest(container_id=container_id), container),
            (runtime.ListContainerStats, pb.ListContainerStatsRequest(), None),
            (runtime.ListPodSandboxStats, pb.ListPodSandboxStatsRequest(), None),
            (runtime.Status, pb.StatusRequest(verbose=True), None),
            (self.world.cri.image.ImageFsInfo, pb.ImageFsInfoRequest(), None),
        )
        for method, request, subject in asks:
            code, message, _, _ = self._call(method, request)
            may_be = subject.may_be if subject is not None else {READY}
            there = ABSENT not in may_be
            allowed = {_Code.OK} if there else {_Code.NOT_FOUND, *({_Code.OK} if len(may_be) > 1 else ())}
            self._expect(step, code, message, allowed)

    # processes die

    def _kill_process(self, step: Step) -> None:
        """SIGKILL to the container's first process, not through noded."""
        _, container = self._container(step)
        if container.may_be != {RUNNING}:
            return
        code, _, answer, _ = self._call(
            self.world.cri.runtime.ContainerStatus,
            self.world.cri.pb.ContainerStatusRequest(container_id=container.identity, verbose=True),
        )
        assert code is _Code.OK
        with suppress(ProcessLookupError):
            os.kill(int(json.loads(answer.info["info"])["pid"]), signal.SIGKILL)
        container.may_be, container.codes = {RUNNING, EXITED}, {137}
        self._until(
            lambda: self._state_of(container) == EXITED, f"the end of {container.identity} is noticed"
        )

    def _kill_monitor(self, step: Step) -> None:
        """SIGKILL to the container's conmon."""
        _, container = self._container(step)
        if container.may_be != {RUNNING}:
            return
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                words = path.read_bytes().split(b"\0")
                if b"--cid" in words and words[words.index(b"--cid") + 1] == container.identity.encode():
                    os.kill(int(path.parent.name), signal.SIGKILL)
        container.may_be, container.codes = {RUNNING, EXITED}, set()
        self._until(
            lambda: self._state_of(container) == EXITED,
            f"the lost monitor of {container.identity} is noticed",
        )

    def _state_of(self, container: ContainerModel) -> str:
        request = self.world.cri.pb.ContainerStatusRequest(container_id=container.identity)
        _, message, answer, _ = self._call(self.world.cri.runtime.ContainerStatus, request)
        assert answer is not None, message
        return str(self.world.cri.pb.ContainerState.Name(answer.status.state))

    # around other steps

    def _duplicate(self, step: Step) -> None:
        """The same request four times at once: one result."""
        inner = step.steps[0]
        pod, container = self._container(inner)
        runtime = self.world.cri.runtime
        if inner.kind == "run_pod":
            request, method, allowed = self._run_request(inner), runtime.RunPodSandbox, self._run_codes(pod)
        elif inner.kind == "create":
            request, method = self._create_request(pod, container, inner), runtime.CreateContainer
            allowed = self._create_codes(pod, container)
        else:
            self._together(Step("together", steps=(inner,)))
            return
        futures = [method.future(request, timeout=CALL_SECONDS) for _ in range(4)]
        answers = []
        for future in futures:
            try:
                answers.append(future.result())
                code, message = _Code.OK, ""
            except grpc.RpcError as error:
                code, message = error.code(), str(error.details())
            self._expect(step, code, message, allowed)
        identities = {
            getattr(answer, "pod_sandbox_id", "") or getattr(answer, "container_id", "") for answer in answers
        }
        if len(identities) > 1:
            raise Refused(f"{step}: one request made {identities}")
        answer = answers[0] if answers else None
        code = _Code.OK if answers else code
        self._ran(pod, code, answer) if inner.kind == "run_pod" else self._created(container, code, answer)

    def _cancel(self, step: Step) -> None:
        """A client gives a call up after a while: whatever was made is taken back."""
        inner = step.steps[0]
        pod, container = self._container(inner)
        runtime = self.world.cri.runtime
        if inner.kind == "exec":
            request, _, _ = self._exec_request(container, inner)
            method = runtime.ExecSync
        elif inner.kind == "create":
            request, method = self._create_request(pod, container, inner), runtime.CreateContainer
        else:
            request, method = self._run_request(inner), runtime.RunPodSandbox
        future = method.future(request, timeout=CALL_SECONDS)
        done = threading.Event()
        future.add_done_callback(lambda _: done.set())
        done.wait(step.wait_ms / 1000)
        future.cancel()
        try:
            answer, code, message = future.result(), _Code.OK, ""
        except grpc.FutureCancelledError:
            answer, code, message = None, _Code.CANCELLED, ""
        except grpc.RpcError as error:
            answer, code, message = None, error.code(), str(error.details())
        if inner.kind == "exec":
            return
        if code is not _Code.CANCELLED:
            codes = self._run_codes(pod) if inner.kind == "run_pod" else self._create_codes(pod, container)
            self._expect(step, code, message, codes)
            self._ran(pod, code, answer) if inner.kind == "run_pod" else self._created(
                container, code, answer
            )
        elif inner.kind == "run_pod" and pod.is_(ABSENT):
            if self._model.cni_broken in ("DEL", "both") and not pod.host_network:
                pod.half_made = pod.owing = True
                pod.may_be = {ABSENT, NOT_READY}
                self._settled_rollback(pod)
            else:
                pod.in_flux = True
        elif inner.kind == "create" and container.may_be == {ABSENT} and pod.is_(READY):
            self._fleeting.add((pod.identity, container.name, container.attempt))
            container.attempt += 1

    def _settled_rollback(self, pod: PodModel) -> None:
        """Wait until a rollback that fails has failed, so that the pod is seen, or has succeeded."""
        stop = self.world.cri.pb.StopPodSandboxRequest(pod_sandbox_id=NOBODY)
        self._call(self.world.cri.runtime.StopPodSandbox, stop)

    def _deadline(self, step: Step) -> None:
        """A deadline that passes, then the retry: it joins the work or finds its result."""
        inner = step.steps[0]
        pod, container = self._container(inner)
        runtime = self.world.cri.runtime
        if inner.kind == "exec":
            self._late_exec(step, container)
            return
        if inner.kind == "run_pod":
            request, method, allowed = self._run_request(inner), runtime.RunPodSandbox, self._run_codes(pod)
        else:
            request, method = self._create_request(pod, container, inner), runtime.CreateContainer
            allowed = self._create_codes(pod, container)
        code, message, answer, _ = self._call(method, request, seconds=max(step.wait_ms, 5) / 1000)
        self._expect(step, code, message, allowed | {_Code.DEADLINE_EXCEEDED})
        if code is _Code.DEADLINE_EXCEEDED:
            code, message, answer, _ = self._call(method, request)
            self._expect(step, code, message, allowed)
        self._ran(pod, code, answer) if inner.kind == "run_pod" else self._created(container, code, answer)

    def _late_exec(self, step: Step, container: ContainerModel) -> None:
        if container.may_be != {RUNNING}:
            return
        request = self.world.cri.pb.ExecSyncRequest(
            container_id=container.identity, cmd=["/bin/sh", "-c", "sleep 100000 & sleep 100000"], timeout=1
        )
        code, message, _, _ = self._call(self.world.cri.runtime.ExecSync, request)
        self._expect(step, code, message, {_Code.DEADLINE_EXCEEDED})

    def _together(self, step: Step) -> None:
        """Several steps at once, each on another pod."""
        with ThreadPoolExecutor(len(step.steps)) as clients:
            for future in [clients.submit(self._do, one) for one in step.steps]:
                future.result()

    def _crash(self, step: Step) -> None:
        """SIGKILL of noded in the middle of other steps; their clients ask again."""
        self._back.clear()
        with ThreadPoolExecutor(len(step.steps)) as clients:
            futures = [clients.submit(self._do, one) for one in step.steps]
            threading.Event().wait(step.wait_ms / 1000)  # not for anything: this is the random moment
            self._away.set()
            try:
                self.world.daemon.kill()
                self._start_daemon()
            finally:
                self._lives += 1
                self._away.clear()
                self._back.set()
            for future in futures:
                future.result()
        self._settle_rows()

    def _restart(self, step: Step) -> None:
        assert self.world.daemon.stop() == 0
        self._start_daemon()
        self._settle_rows()

    def _start_daemon(self) -> None:
        self.world.daemon.start()
        self.world.settled()

    def _settle_rows(self) -> None:
        """What was owed when noded died is retried; half-made pods may be shown, or gone, at any time.

        Nor does a new noded know which of them a client was told of.
        """
        self._forgotten |= self._fleeting
        for pod in self._model.pods:
            pod.forgotten |= pod.in_flux
            if pod.half_made:
                pod.may_be = {ABSENT, NOT_READY}

    def _reload(self, step: Step) -> None:
        self.world.daemon.reload()
        self.world.settled()

    # the node breaks

    def _break_cni(self, step: Step) -> None:
        commands = (("ADD",), ("DEL",), ("ADD", "DEL"))[step.variant % 3]
        code = (FAIL, DO_AND_FAIL, DO_AND_DIE, NONSENSE, HANG)[step.variant // 3 % 5]
        self._heal_cni(step)
        for command in commands:
            # A DEL whose answer is not an error is a DEL that succeeded.
            self._bridge.tell(command, FAIL if command == "DEL" and code in (NONSENSE,) else code)
        self._model.cni_broken = "both" if len(commands) == 2 else commands[0]

    def _heal_cni(self, step: Step) -> None:
        self._bridge.heal()
        self._model.cni_broken = ""

    def _fill_disk(self, step: Step) -> None:
        self._disk.fill()
        self._model.disk_full = True

    def _free_disk(self, step: Step) -> None:
        self._disk.free()
        self._model.disk_full = False

    # images

    def _load_image(self, step: Step) -> None:
        admin = self.world.cri.admin_pb
        request = admin.LoadImageRequest(path=str(self._second))
        code, message, _, _ = self._call(self.world.cri.admin.LoadImage, request)
        full = self._model.disk_full
        self._expect(step, code, message, {_Code.OK, _Code.RESOURCE_EXHAUSTED} if full else {_Code.OK})
        self._model.image_loaded |= code is _Code.OK

    def _remove_image(self, step: Step) -> None:
        pb = self.world.cri.pb
        request = pb.RemoveImageRequest(image=pb.ImageSpec(image=SECOND_IMAGE))
        code, message, _, _ = self._call(self.world.cri.image.RemoveImage, request)
        self._expect(step, code, message, {_Code.OK})
        self._model.image_loaded = False

    def _hostile(self, step: Step) -> None:
        what, code, message = hostile.call(self.world.cri, step.variant)
        self.codes[code.name] += 1
        if code not in hostile.REFUSALS:
            raise Refused(f"{what}: {code.name} ({message})")

    # the node as it is

    def _check(self) -> None:
        """The lists are what the model allows, ids and addresses are kept, and no address is lost."""
        self._check_pods()
        self._check_containers()
        self._check_addresses()
        tags = {tag for image in self.world.cri.images() for tag in image.repo_tags}
        assert (SECOND_IMAGE in tags) == self._model.image_loaded, f"images: {sorted(tags)}"
        self._check_log()

    def _check_pods(self) -> None:
        pb, seen = self.world.cri.pb, self.world.cri.pods()
        by_uid = Counter(one.metadata.uid for one in seen)
        assert not [uid for uid, count in by_uid.items() if count > 1], f"two pods of one uid: {seen}"
        there = {one.metadata.uid: one for one in seen}
        for pod in self._model.pods:
            one = there.pop(pod.uid, None)
            state = ABSENT if one is None else pb.PodSandboxState.Name(one.state)
            if pod.in_flux:
                seen_going = state == NOT_READY and not pod.forgotten
                assert not seen_going, f"pod {pod.number} was given up and is seen going"
                continue
            if pod.half_made and state != READY:
                continue
            assert state in pod.may_be, f"pod {pod.number} is {state}, expected {pod.may_be}"
            if one is None:
                continue
            assert one.id == pod.identity, f"pod {pod.number} was {pod.identity} and is {one.id}"
            assert one.metadata.attempt == pod.attempt
            if state == READY and not pod.host_network:
                address = self.world.cri.pod_ip(pod.identity)
                assert pod.ip in ("", address), f"pod {pod.number} had {pod.ip} and has {address}"
                pod.ip = address
        assert not there, f"pods that nobody made: {there}"

    def _check_containers(self) -> None:
        pb = self.world.cri.pb
        there = {one.id: one for one in self.world.cri.containers()}
        for pod in self._model.pods:
            for container in pod.containers:
                one = there.pop(container.identity, None)
                state = ABSENT if one is None else pb.ContainerState.Name(one.state)
                where = f"container {container.name} of pod {pod.number} ({container.identity[:12]})"
                assert state in container.may_be, f"{where} is {state}, expected {container.may_be}"
                ends = state == RUNNING and bool(_PROGRAMS[container.program][1])
                container.may_be = {RUNNING, EXITED} if ends else {state}
                if state == EXITED and container.codes:
                    code = self.world.cri.status(container.identity).exit_code
                    assert code in container.codes, f"{where} exited with {code}, expected {container.codes}"
                    container.codes = {code}
        for one in there.values():
            key = (one.pod_sandbox_id, one.metadata.name, one.metadata.attempt)
            assert key in self._fleeting, f"a container that nobody made: {one}"
            complete = one.state == pb.CONTAINER_CREATED or key in self._forgotten
            assert complete, f"a container that was given up is seen going: {one}"

    def _check_addresses(self) -> None:
        ready = {pod.ip for pod in self._model.pods if pod.is_(READY) and pod.ip}
        lost = ready - self._addresses()
        assert not lost, f"addresses of running pods that nobody holds: {lost}"
        unsure = any(pod.in_flux or pod.half_made or pod.owing for pod in self._model.pods)
        if not unsure and self._model.cni_broken not in ("DEL", "both"):
            # A create that was given up may still be on its way down.
            self._until(lambda: self._addresses() == ready, f"no address but {ready} is held")

    def _addresses(self) -> set[str]:
        """What host-local has given away."""
        return {path.name for path in self.world.daemon.ipam.rglob("10.*") if path.is_file()}

    def _check_log(self) -> None:
        """noded never says of itself that it is broken."""
        with self.world.daemon.log.open("rb") as log:
            log.seek(self._log_at)
            new = log.read()
        self._log_at += len(new)
        text = new.decode(errors="replace")
        found = [line for line in text.splitlines() if any(word in line for word in _DEFECTS)]
        assert not found, f"noded's log: {found[0]}\n{text[-6000:]}"


def resident_kilobytes(pid: int) -> int:
    """VmRSS of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
