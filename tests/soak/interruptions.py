"""Steps around other steps: asked twice, at once, given up, cut short by a SIGKILL of noded."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc

from tests.soak.containers import Containers
from tests.soak.model import ABSENT, NOT_READY, READY, RUNNING, ContainerModel
from tests.soak.node import CALL_SECONDS, Code, Node, Refused
from tests.soak.pods import Pods
from tests.soak.steps import Step


class Interruptions:
    """Does other steps in bad circumstances.

    Args:
        do: does a step of any kind.
    """

    def __init__(self, node: Node, pods: Pods, containers: Containers, do: Callable[[Step], None]) -> None:
        self.node = node
        self.pods = pods
        self.containers = containers
        self._do = do

    def duplicate(self, step: Step) -> None:
        """The same request four times at once: one result."""
        inner = step.steps[0]
        pod, container = self.containers.container(inner)
        runtime = self.node.world.cri.runtime
        if inner.kind == "run_pod":
            request, method, allowed = (
                self.pods.run_request(inner),
                runtime.RunPodSandbox,
                self.pods.run_codes(pod),
            )
        elif inner.kind == "create":
            request, method = self.containers.create_request(pod, container, inner), runtime.CreateContainer
            allowed = self.containers.create_codes(pod, container)
        else:
            self.together(Step("together", steps=(inner,)))
            return
        futures = [method.future(request, timeout=CALL_SECONDS) for _ in range(4)]
        answers = []
        for future in futures:
            try:
                answers.append(future.result())
                code, message = Code.OK, ""
            except grpc.RpcError as error:
                code, message = error.code(), str(error.details())
            self.node.expect(step, code, message, allowed)
        identities = {
            getattr(answer, "pod_sandbox_id", "") or getattr(answer, "container_id", "") for answer in answers
        }
        if len(identities) > 1:
            raise Refused(f"{step}: one request made {identities}")
        answer = answers[0] if answers else None
        code = Code.OK if answers else code
        self.pods.ran(pod, code, answer) if inner.kind == "run_pod" else self.containers.created(
            container, code, answer
        )

    def cancel(self, step: Step) -> None:
        """A client gives a call up after a while: whatever was made is taken back."""
        inner = step.steps[0]
        pod, container = self.containers.container(inner)
        runtime = self.node.world.cri.runtime
        if inner.kind == "exec":
            request, _, _ = self.containers.exec_request(container, inner)
            method = runtime.ExecSync
        elif inner.kind == "create":
            request, method = self.containers.create_request(pod, container, inner), runtime.CreateContainer
        else:
            request, method = self.pods.run_request(inner), runtime.RunPodSandbox
        log_at = self.node.world.daemon.log.stat().st_size
        future = method.future(request, timeout=CALL_SECONDS)
        done = threading.Event()
        future.add_done_callback(lambda _: done.set())
        done.wait(step.wait_ms / 1000)
        future.cancel()
        try:
            answer, code, message = future.result(), Code.OK, ""
        except grpc.FutureCancelledError:
            answer, code, message = None, Code.CANCELLED, ""
        except grpc.RpcError as error:
            answer, code, message = None, error.code(), str(error.details())
        if inner.kind == "exec":
            return
        if code is not Code.CANCELLED:
            codes = (
                self.pods.run_codes(pod)
                if inner.kind == "run_pod"
                else self.containers.create_codes(pod, container)
            )
            self.node.expect(step, code, message, codes)
            self.pods.ran(pod, code, answer) if inner.kind == "run_pod" else self.containers.created(
                container, code, answer
            )
        elif inner.kind == "run_pod" and pod.is_(ABSENT):
            if self.node.model.cni_broken in ("DEL", "both") and not pod.host_network:
                pod.half_made = pod.owing = True
                pod.may_be = {ABSENT, NOT_READY}
                self.node.settled()  # a rollback that fails has failed, so that the pod is seen
            else:
                pod.in_flux, pod.cancelled_at = True, log_at
                self.node.given_up.add((pod.uid, pod.attempt))
        elif inner.kind == "create" and container.may_be == {ABSENT} and pod.is_(READY):
            self.node.fleeting.add((pod.identity, container.name, container.attempt))
            container.attempt += 1

    def deadline(self, step: Step) -> None:
        """A deadline that passes, then the retry: it joins the work or finds its result."""
        inner = step.steps[0]
        pod, container = self.containers.container(inner)
        runtime = self.node.world.cri.runtime
        if inner.kind == "exec":
            self._late_exec(step, container)
            return
        if inner.kind == "run_pod":
            request, method, allowed = (
                self.pods.run_request(inner),
                runtime.RunPodSandbox,
                self.pods.run_codes(pod),
            )
        else:
            request, method = self.containers.create_request(pod, container, inner), runtime.CreateContainer
            allowed = self.containers.create_codes(pod, container)
        code, message, answer, _ = self.node.call(method, request, seconds=max(step.wait_ms, 5) / 1000)
        self.node.expect(step, code, message, allowed | {Code.DEADLINE_EXCEEDED})
        if code is Code.DEADLINE_EXCEEDED:
            code, message, answer, _ = self.node.call(method, request)
            self.node.expect(step, code, message, allowed)
        self.pods.ran(pod, code, answer) if inner.kind == "run_pod" else self.containers.created(
            container, code, answer
        )

    def _late_exec(self, step: Step, container: ContainerModel) -> None:
        if container.may_be != {RUNNING}:
            return
        request = self.node.world.cri.pb.ExecSyncRequest(
            container_id=container.identity, cmd=["/bin/sh", "-c", "sleep 100000 & sleep 100000"], timeout=1
        )
        code, message, _, _ = self.node.call(self.node.world.cri.runtime.ExecSync, request)
        self.node.expect(step, code, message, {Code.DEADLINE_EXCEEDED})

    def together(self, step: Step) -> None:
        """Several steps at once, each on another pod."""
        with ThreadPoolExecutor(len(step.steps)) as clients:
            for future in [clients.submit(self._do, one) for one in step.steps]:
                future.result()

    def crash(self, step: Step) -> None:
        """SIGKILL of noded in the middle of other steps; their clients ask again."""
        self.node.back.clear()
        with ThreadPoolExecutor(len(step.steps)) as clients:
            futures = [clients.submit(self._do, one) for one in step.steps]
            threading.Event().wait(step.wait_ms / 1000)  # not for anything: this is the random moment
            self.node.away.set()
            try:
                self.node.world.daemon.kill()
                self._start_daemon()
            finally:
                self.node.lives += 1
                self.node.away.clear()
                self.node.back.set()
            for future in futures:
                future.result()
        self._settle_rows()

    def restart(self, step: Step) -> None:
        assert self.node.world.daemon.stop() == 0
        self._start_daemon()
        self._settle_rows()

    def _start_daemon(self) -> None:
        self.node.world.daemon.start()
        self.node.world.settled()

    def _settle_rows(self) -> None:
        """What was owed when noded died is retried; half-made pods may be shown, or gone, at any time.

        Nor does a new noded know which of them a client was told of.
        """
        self.node.forgotten |= self.node.fleeting
        self.node.ghosts |= self.node.given_up
        for pod in self.node.model.pods:
            if pod.half_made:
                pod.may_be = {ABSENT, NOT_READY}

    def reload(self, step: Step) -> None:
        self.node.world.daemon.reload()
        self.node.settled()
