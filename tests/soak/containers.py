"""The steps that are done to containers."""

from __future__ import annotations

import json
import os
import signal
from contextlib import suppress
from typing import Any

from tests.crash.world import IMAGE
from tests.soak.model import ABSENT, CREATED, EXITED, READY, RUNNING, ContainerModel, PodModel
from tests.soak.node import NOBODY, Code, Node, Refused
from tests.soak.pods import Pods
from tests.soak.steps import Step
from tests.support.processes import monitors

# What they run: name -> command, and the codes that it ends with by itself.
PROGRAMS = {
    "sleep": (["sleep", "100000"], set()),
    "exit": (["/bin/sh", "-c", "exit 7"], {7}),
    "trap": (["/bin/sh", "-c", "trap 'exit 5' TERM; while :; do sleep 100000 & wait; done"], set()),
}


class Containers:
    """Creates, starts, looks at, kills and removes containers, and knows what each call may answer."""

    def __init__(self, node: Node, pods: Pods) -> None:
        self.node = node
        self.pods = pods

    def container(self, step: Step) -> tuple[PodModel, ContainerModel]:
        pod = self.node.model.pods[step.pod]
        self.pods.resolve(pod)
        return pod, pod.containers[step.container]

    def create_request(self, pod: PodModel, container: ContainerModel, step: Step) -> Any:
        if container.may_be == {ABSENT}:
            container.program = tuple(PROGRAMS)[step.variant % len(PROGRAMS)]
        main = self.node.world.cri.container_config(
            container.name,
            IMAGE,
            PROGRAMS[container.program][0],
            attempt=container.attempt,
            network="NODE" if pod.host_network else "POD",
            pid="POD" if pod.shares_pids else "CONTAINER",
        )
        return self.node.world.cri.pb.CreateContainerRequest(
            pod_sandbox_id=self.pods.pod_id(pod), config=main, sandbox_config=self.pods.pod_config(pod)
        )

    def create_codes(self, pod: PodModel, container: ContainerModel) -> set[Code]:
        if pod.half_made:
            return {Code.FAILED_PRECONDITION, Code.NOT_FOUND}
        if pod.is_(ABSENT):
            return {Code.NOT_FOUND}
        if not pod.is_(READY):
            return {Code.FAILED_PRECONDITION}
        if container.may_be == {CREATED}:
            return {Code.OK}
        if container.may_be != {ABSENT}:
            return {Code.ALREADY_EXISTS}
        return {Code.RESOURCE_EXHAUSTED} if self.node.model.disk_full else {Code.OK}

    def create(self, step: Step) -> None:
        pod, container = self.container(step)
        request = self.create_request(pod, container, step)
        code, message, answer, _ = self.node.call(self.node.world.cri.runtime.CreateContainer, request)
        self.node.expect(step, code, message, self.create_codes(pod, container))
        self.created(container, code, answer)

    def created(self, container: ContainerModel, code: Code, answer: Any) -> None:
        if code is Code.OK:
            if container.may_be == {CREATED} and container.identity != answer.container_id:
                raise Refused(
                    f"{container.name} is {container.identity}, but was made again as {answer.container_id}"
                )
            container.identity, container.may_be = str(answer.container_id), {CREATED}

    def _container_id(self, container: ContainerModel) -> str:
        return container.identity or (container.gone_ids[-1] if container.gone_ids else NOBODY)

    def start(self, step: Step) -> None:
        pod, container = self.container(step)
        request = self.node.world.cri.pb.StartContainerRequest(container_id=self._container_id(container))
        code, message, _, lost = self.node.call(self.node.world.cri.runtime.StartContainer, request)
        if container.may_be == {ABSENT}:
            self.node.expect(step, code, message, {Code.NOT_FOUND})
        elif container.may_be == {CREATED} and pod.is_(READY):
            # An answer that was lost with noded: a second start is refused, for it runs.
            self.node.expect(step, code, message, {Code.OK, *({Code.FAILED_PRECONDITION} if lost else ())})
            container.codes = set(PROGRAMS[container.program][1])
            container.may_be = {RUNNING} if not container.codes else {RUNNING, EXITED}
        else:
            self.node.expect(step, code, message, {Code.FAILED_PRECONDITION})

    def stop(self, step: Step) -> None:
        _, container = self.container(step)
        grace = step.variant % 2
        request = self.node.world.cri.pb.StopContainerRequest(
            container_id=self._container_id(container), timeout=grace
        )
        code, message, _, _ = self.node.call(self.node.world.cri.runtime.StopContainer, request)
        self.node.expect(step, code, message, {Code.OK})
        if container.may_be == {CREATED}:
            container.may_be, container.codes = {EXITED}, set()
        elif container.may_be != {ABSENT}:
            # 143: the shell has not yet set its trap when the signal comes.
            container.ended(*((137, 143, 5) if grace else (137,)))

    def remove(self, step: Step) -> None:
        _, container = self.container(step)
        request = self.node.world.cri.pb.RemoveContainerRequest(container_id=self._container_id(container))
        code, message, _, _ = self.node.call(self.node.world.cri.runtime.RemoveContainer, request)
        self.node.expect(step, code, message, {Code.OK})
        if container.may_be != {ABSENT}:
            container.forget()

    _COMMANDS = (
        (["echo", "alive"], 0, b"alive\n"),
        (["/bin/sh", "-c", "exit 3"], 3, b""),
        (["/bin/sh", "-c", "head -c 300000 /dev/zero"], 0, bytes(300000)),
        (["/bin/sh", "-c", "sleep 100000 & echo left"], 0, b"left\n"),
    )

    def exec_request(self, container: ContainerModel, step: Step) -> tuple[Any, int, bytes]:
        command, code, output = self._COMMANDS[step.variant % len(self._COMMANDS)]
        request = self.node.world.cri.pb.ExecSyncRequest(
            container_id=self._container_id(container), cmd=command, timeout=30
        )
        return request, code, output

    def exec(self, step: Step) -> None:
        _, container = self.container(step)
        request, code, output = self.exec_request(container, step)
        status, message, answer, _ = self.node.call(self.node.world.cri.runtime.ExecSync, request)
        if container.may_be == {RUNNING}:
            self.node.expect(step, status, message, {Code.OK})
            if (answer.exit_code, answer.stdout) != (code, output):
                raise Refused(
                    f"{step}: exit code {answer.exit_code}, {len(answer.stdout)} bytes: {answer.stderr!r}"
                )
        elif RUNNING in container.may_be:
            assert status is not Code.INTERNAL, message
        else:
            missing = container.may_be == {ABSENT}
            self.node.expect(step, status, message, {Code.NOT_FOUND if missing else Code.FAILED_PRECONDITION})

    def update(self, step: Step) -> None:
        _, container = self.container(step)
        pb = self.node.world.cri.pb
        request = pb.UpdateContainerResourcesRequest(
            container_id=self._container_id(container),
            linux=pb.LinuxContainerResources(cpu_shares=100 + step.variant % 1000),
        )
        code, message, _, _ = self.node.call(self.node.world.cri.runtime.UpdateContainerResources, request)
        self._alive_only(step, container, code, message, {CREATED, RUNNING})

    def reopen_log(self, step: Step) -> None:
        _, container = self.container(step)
        request = self.node.world.cri.pb.ReopenContainerLogRequest(container_id=self._container_id(container))
        code, message, _, _ = self.node.call(self.node.world.cri.runtime.ReopenContainerLog, request)
        self._alive_only(step, container, code, message, {RUNNING})

    def _alive_only(
        self, step: Step, container: ContainerModel, code: Code, message: str, states: set[str]
    ) -> None:
        if container.may_be == {ABSENT}:
            self.node.expect(step, code, message, {Code.NOT_FOUND})
        elif container.may_be <= states:
            self.node.expect(step, code, message, {Code.OK})
        elif container.may_be & states:  # it may be exiting right now
            self.node.expect(
                step, code, message, {Code.OK, Code.FAILED_PRECONDITION, Code.NOT_FOUND, Code.UNAVAILABLE}
            )
        else:
            self.node.expect(step, code, message, {Code.FAILED_PRECONDITION})

    def status(self, step: Step) -> None:
        """Everything that only looks."""
        pod, container = self.container(step)
        pb, runtime = self.node.world.cri.pb, self.node.world.cri.runtime
        pod_id, container_id = self.pods.pod_id(pod), self._container_id(container)
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
            (self.node.world.cri.image.ImageFsInfo, pb.ImageFsInfoRequest(), None),
        )
        for method, request, subject in asks:
            code, message, _, _ = self.node.call(method, request)
            may_be = subject.may_be if subject is not None else {READY}
            there = ABSENT not in may_be
            allowed = {Code.OK} if there else {Code.NOT_FOUND, *({Code.OK} if len(may_be) > 1 else ())}
            self.node.expect(step, code, message, allowed)

    def kill_process(self, step: Step) -> None:
        """SIGKILL to the container's first process, not through noded."""
        _, container = self.container(step)
        if container.may_be != {RUNNING}:
            return
        code, _, answer, _ = self.node.call(
            self.node.world.cri.runtime.ContainerStatus,
            self.node.world.cri.pb.ContainerStatusRequest(container_id=container.identity, verbose=True),
        )
        assert code is Code.OK
        with suppress(ProcessLookupError):
            os.kill(int(json.loads(answer.info["info"])["pid"]), signal.SIGKILL)
        container.may_be, container.codes = {RUNNING, EXITED}, {137}
        self.node.until(
            lambda: self._state_of(container) == EXITED, f"the end of {container.identity} is noticed"
        )

    def kill_monitor(self, step: Step) -> None:
        """SIGKILL to the container's conmon."""
        _, container = self.container(step)
        if container.may_be != {RUNNING}:
            return
        for pid in monitors(container.identity):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        container.may_be, container.codes = {RUNNING, EXITED}, set()
        self.node.until(
            lambda: self._state_of(container) == EXITED,
            f"the lost monitor of {container.identity} is noticed",
        )

    def _state_of(self, container: ContainerModel) -> str:
        request = self.node.world.cri.pb.ContainerStatusRequest(container_id=container.identity)
        _, message, answer, _ = self.node.call(self.node.world.cri.runtime.ContainerStatus, request)
        assert answer is not None, message
        return str(self.node.world.cri.pb.ContainerState.Name(answer.status.state))
