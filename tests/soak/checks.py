"""The node as it is, compared with what it must be."""

from __future__ import annotations

from collections import Counter

from tests.soak.breakage import SECOND_IMAGE
from tests.soak.containers import PROGRAMS
from tests.soak.model import ABSENT, EXITED, NOT_READY, READY, RUNNING
from tests.soak.node import Node

# What noded's log must never have, whatever happens to it.
_DEFECTS = ("defect", "Traceback", "never retrieved", "was never awaited", "Task was destroyed")


class Checks:
    """Looks at lists, addresses and the log."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._log_at = 0

    def check(self) -> None:
        """The lists are what the model allows, ids and addresses are kept, and no address is lost."""
        self._check_pods()
        self._check_containers()
        self._check_addresses()
        tags = {tag for image in self.node.world.cri.images() for tag in image.repo_tags}
        assert (SECOND_IMAGE in tags) == self.node.model.image_loaded, f"images: {sorted(tags)}"
        self.check_log()

    def _check_pods(self) -> None:
        pb, seen = self.node.world.cri.pb, self.node.pods()
        by_uid = Counter(one.metadata.uid for one in seen)
        assert not [uid for uid, count in by_uid.items() if count > 1], f"two pods of one uid: {seen}"
        there = {one.metadata.uid: one for one in seen}
        for pod in self.node.model.pods:
            one = there.pop(pod.uid, None)
            state = ABSENT if one is None else pb.PodSandboxState.Name(one.state)
            if pod.in_flux:
                assert state != NOT_READY, f"pod {pod.number} was given up and is seen going"
                continue
            if pod.half_made and state != READY:
                continue
            assert state in pod.may_be, f"pod {pod.number} is {state}, expected {pod.may_be}"
            if one is None:
                continue
            assert one.id == pod.identity, f"pod {pod.number} was {pod.identity} and is {one.id}"
            assert one.metadata.attempt == pod.attempt
            if state == READY and not pod.host_network:
                address = self.node.world.cri.pod_ip(pod.identity)
                assert pod.ip in ("", address), f"pod {pod.number} had {pod.ip} and has {address}"
                pod.ip = address
        assert not there, f"pods that nobody made: {there}"

    def _check_containers(self) -> None:
        pb = self.node.world.cri.pb
        there = {one.id: one for one in self.node.world.cri.containers()}
        for pod in self.node.model.pods:
            for container in pod.containers:
                one = there.pop(container.identity, None)
                state = ABSENT if one is None else pb.ContainerState.Name(one.state)
                where = f"container {container.name} of pod {pod.number} ({container.identity[:12]})"
                assert state in container.may_be, f"{where} is {state}, expected {container.may_be}"
                ends = state == RUNNING and bool(PROGRAMS[container.program][1])
                container.may_be = {RUNNING, EXITED} if ends else {state}
                if state == EXITED and container.codes:
                    code = self.node.world.cri.status(container.identity).exit_code
                    assert code in container.codes, f"{where} exited with {code}, expected {container.codes}"
                    container.codes = {code}
        for one in there.values():
            key = (one.pod_sandbox_id, one.metadata.name, one.metadata.attempt)
            assert key in self.node.fleeting, f"a container that nobody made: {one}"
            complete = one.state == pb.CONTAINER_CREATED or key in self.node.forgotten
            assert complete, f"a container that was given up is seen going: {one}"

    def _check_addresses(self) -> None:
        ready = {pod.ip for pod in self.node.model.pods if pod.is_(READY) and pod.ip}
        lost = ready - self._addresses()
        assert not lost, f"addresses of running pods that nobody holds: {lost}"
        unsure = any(pod.in_flux or pod.half_made or pod.owing for pod in self.node.model.pods)
        if not unsure and self.node.model.cni_broken not in ("DEL", "both"):
            # A create that was given up may still be on its way down.
            self.node.until(lambda: self._addresses() == ready, f"no address but {ready} is held")

    def _addresses(self) -> set[str]:
        """What host-local has given away."""
        return {path.name for path in self.node.world.daemon.ipam.rglob("10.*") if path.is_file()}

    def check_log(self) -> None:
        """noded never says of itself that it is broken."""
        with self.node.world.daemon.log.open("rb") as log:
            log.seek(self._log_at)
            new = log.read()
        self._log_at += len(new)
        text = new.decode(errors="replace")
        found = [line for line in text.splitlines() if any(word in line for word in _DEFECTS)]
        assert not found, f"noded's log: {found[0]}\n{text[-6000:]}"
