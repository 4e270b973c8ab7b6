"""The steps that are done to pods."""

from __future__ import annotations

from typing import Any

from tests.crash.world import HANDLERS
from tests.soak.model import ABSENT, NOT_READY, READY, PodModel
from tests.soak.node import NETWORK_CODES, NOBODY, Code, Node, Refused
from tests.soak.steps import Step


class Pods:
    """Runs, stops and removes pods, and knows what each call may answer."""

    def __init__(self, node: Node) -> None:
        self.node = node

    def pod_config(self, pod: PodModel) -> Any:
        return self.node.world.daemon.pod_config(
            self.node.world.cri,
            f"soak-{pod.number}",
            uid=pod.uid,
            attempt=pod.attempt,
            network="NODE" if pod.host_network else "POD",
            pid="POD" if pod.shares_pids else "CONTAINER",
        )

    def run_request(self, step: Step) -> Any:
        pod = self.node.model.pods[step.pod]
        if pod.is_(ABSENT):
            pod.host_network = step.variant % 7 == 0
            pod.shares_pids = step.variant % 3 == 0
            pod.handler = HANDLERS[step.variant % 2]
        pb = self.node.world.cri.pb
        return pb.RunPodSandboxRequest(config=self.pod_config(pod), runtime_handler=pod.handler)

    def run_codes(self, pod: PodModel) -> set[Code]:
        """What RunPodSandbox may answer now."""
        if pod.is_(READY):
            return {Code.OK}
        if pod.half_made or pod.in_flux:
            return {Code.OK, Code.ALREADY_EXISTS, *NETWORK_CODES, Code.RESOURCE_EXHAUSTED}
        if NOT_READY in pod.may_be:
            return {Code.ALREADY_EXISTS}
        if self.node.model.disk_full:
            return {Code.RESOURCE_EXHAUSTED}
        if self.node.model.cni_broken in ("ADD", "both") and not pod.host_network:
            return set(NETWORK_CODES)
        return {Code.OK}

    def run_pod(self, step: Step) -> None:
        pod = self.node.model.pods[step.pod]
        self.resolve(pod)
        request = self.run_request(step)
        code, message, answer, lost = self.node.call(self.node.world.cri.runtime.RunPodSandbox, request)
        allowed = self.run_codes(pod)
        if lost and self.node.model.cni_broken in ("DEL", "both") and not pod.host_network:
            allowed |= (
                NETWORK_CODES  # the half-made one of the daemon that was killed is first to be taken down
            )
        self.node.expect(step, code, message, allowed)
        self.ran(pod, code, answer)

    def ran(self, pod: PodModel, code: Code, answer: Any) -> None:
        if code is Code.OK:
            identity = str(answer.pod_sandbox_id)
            if pod.is_(READY) and pod.identity != identity:
                raise Refused(f"pod {pod.number} is {pod.identity}, but was made again as {identity}")
            pod.identity, pod.may_be = identity, {READY}
            pod.half_made = pod.owing = False
        elif pod.is_(ABSENT) and self.node.model.cni_broken in ("DEL", "both") and not pod.host_network:
            # Its rollback may have had to stop.
            pod.half_made = pod.owing = True
            pod.may_be = {ABSENT, NOT_READY}

    def stop_pod(self, step: Step) -> None:
        pod = self.node.model.pods[step.pod]
        self.resolve(pod)
        request = self.node.world.cri.pb.StopPodSandboxRequest(pod_sandbox_id=self.pod_id(pod))
        code, message, _, _ = self.node.call(self.node.world.cri.runtime.StopPodSandbox, request)
        self.node.expect(step, code, message, self._down_codes(pod))
        self._stopped(pod, code)

    def _down_codes(self, pod: PodModel) -> set[Code]:
        broken = self.node.model.cni_broken in ("DEL", "both") and not pod.host_network
        if broken and (pod.owing or pod.half_made):
            return {Code.OK, *NETWORK_CODES}  # its DEL may have been done before the plugin broke
        if broken and pod.is_(READY):
            return set(NETWORK_CODES)
        return {Code.OK}

    def _stopped(self, pod: PodModel, code: Code) -> None:
        if ABSENT not in pod.may_be:
            pod.stopped()
            pod.owing = code is not Code.OK

    def remove_pod(self, step: Step) -> None:
        pod = self.node.model.pods[step.pod]
        self.resolve(pod)
        pb, runtime = self.node.world.cri.pb, self.node.world.cri.runtime
        identity = self.pod_id(pod)
        stop = pb.StopPodSandboxRequest(pod_sandbox_id=identity)
        code, message, _, _ = self.node.call(runtime.StopPodSandbox, stop)
        self.node.expect(step, code, message, self._down_codes(pod))
        self._stopped(pod, code)
        if code is not Code.OK:
            return
        code, message, _, _ = self.node.call(
            runtime.RemovePodSandbox, pb.RemovePodSandboxRequest(pod_sandbox_id=identity)
        )
        self.node.expect(step, code, message, {Code.OK})
        if pod.half_made and not pod.identity:
            return  # its rollback goes on: where that halts, the pod is shown
        pod.forget()

    def pod_id(self, pod: PodModel) -> str:
        """Its id, or one that it had, or one that nothing ever had."""
        return pod.identity or (pod.gone_ids[-1] if pod.gone_ids else NOBODY)

    def resolve(self, pod: PodModel) -> None:
        """A create that was given up must be gone by now, or soon."""
        if not (pod.in_flux or pod.half_made):
            return
        if pod.in_flux:
            self.node.settled()  # the cancel has reached the core: it does not become ready any more
            self.node.until(
                lambda: self._seen_pod(pod) is None or self._is_made(pod),
                f"the cancelled create of pod {pod.number} is undone",
            )
            pod.in_flux = False
            seen = self._seen_pod(pod)
            if seen is None:
                pod.attempt += 1
            else:
                pod.identity, pod.may_be = seen.id, {READY}
                self.node.given_up.discard((pod.uid, pod.attempt))
                self.node.ghosts.discard((pod.uid, pod.attempt))
            return
        seen = self._seen_pod(pod)
        if seen is None and not pod.owing:
            pod.half_made = False
        pod.identity = seen.id if seen else ""

    def _is_made(self, pod: PodModel) -> bool:
        """Whether a cancelled create had succeeded: its answer was on the way, or noded died just then."""
        seen = self._seen_pod(pod)
        if seen is None or seen.state != self.node.world.cri.pb.SANDBOX_READY:
            return False
        return (pod.uid, pod.attempt) in self.node.ghosts or self.node.was_answered(seen.id, pod.cancelled_at)

    def _seen_pod(self, pod: PodModel) -> Any:
        return next((one for one in self.node.pods() if one.metadata.uid == pod.uid), None)
