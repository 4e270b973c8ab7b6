"""Pods and containers of a test, in the words of the CRI."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noded.cli.log_lines import Renderer, parse
from noded.proto.runtime import v1 as cri
from noded.testing.sessions import COMMAND, PORTS, Session

if TYPE_CHECKING:
    from noded.testing.node import TestNode

_POLL_SECONDS = 0.05


class TestPod:
    """A pod sandbox."""

    __test__ = False

    def __init__(self, node: TestNode, pod_id: str, config: cri.PodSandboxConfig) -> None:
        self.node = node
        self.id = pod_id
        self.config = config

    def status(self) -> cri.PodSandboxStatus:
        request = cri.PodSandboxStatusRequest(pod_sandbox_id=self.id)
        reply = self.node.runtime("PodSandboxStatus", request, cri.PodSandboxStatusResponse)
        assert reply.status is not None
        return reply.status

    @property
    def ready(self) -> bool:
        return self.status().state == cri.PodSandboxState.SANDBOX_READY

    @property
    def ip(self) -> str:
        network = self.status().network
        return network.ip if network is not None else ""

    def create(
        self,
        *command: str,
        name: str = "main",
        memory_bytes: int = 0,
        tty: bool = False,
        stdin: bool = False,
        stop_signal: cri.Signal = cri.Signal.SIGTERM,
        attempt: int = 0,
        seccomp_default: bool = False,
        add_capabilities: Sequence[str] = (),
    ) -> TestContainer:
        """Create a container; one word as the command is a script for the shell."""
        words = ["/bin/sh", "-c", command[0]] if len(command) == 1 else list(command)
        pids = self._pids()
        config = cri.ContainerConfig(
            metadata=cri.ContainerMetadata(name=name, attempt=attempt),
            image=cri.ImageSpec(image=self.node.image),
            command=words,
            log_path=f"{name}.log",
            tty=tty,
            stdin=stdin,
            stop_signal=stop_signal,
            linux=cri.LinuxContainerConfig(
                resources=cri.LinuxContainerResources(memory_limit_in_bytes=memory_bytes),
                security_context=cri.LinuxContainerSecurityContext(
                    namespace_options=cri.NamespaceOption(pid=pids),
                    capabilities=cri.Capability(add_capabilities=list(add_capabilities)),
                    seccomp=cri.SecurityProfile(
                        profile_type=cri.SecurityProfileProfileType.RuntimeDefault
                        if seccomp_default
                        else cri.SecurityProfileProfileType.Unconfined
                    ),
                ),
            ),
        )
        request = cri.CreateContainerRequest(
            pod_sandbox_id=self.id, config=config, sandbox_config=self.config
        )
        created = self.node.runtime("CreateContainer", request, cri.CreateContainerResponse)
        log = Path(self.config.log_directory) / config.log_path
        return TestContainer(self, created.container_id, log)

    def run(self, *command: str, **options: Any) -> TestContainer:
        """Create and start a container."""
        container = self.create(*command, **options)
        container.start()
        return container

    def _pids(self) -> cri.NamespaceMode:
        linux = self.config.linux
        context = linux.security_context if linux is not None else None
        options = context.namespace_options if context is not None else None
        return options.pid if options is not None else cri.NamespaceMode.CONTAINER

    def forward(self, port: int) -> Session:
        """A connection to a port of the pod, as `kubectl port-forward` makes it.

        Data has channel 0, errors channel 1; both bring the port as two bytes first.
        """
        request = cri.PortForwardRequest(pod_sandbox_id=self.id, port=[port])
        return Session(self.node.runtime("PortForward", request, cri.PortForwardResponse).url, PORTS)

    def stats(self) -> cri.PodSandboxStats:
        request = cri.PodSandboxStatsRequest(pod_sandbox_id=self.id)
        reply = self.node.runtime("PodSandboxStats", request, cri.PodSandboxStatsResponse)
        assert reply.stats is not None
        return reply.stats

    def stop(self) -> None:
        request = cri.StopPodSandboxRequest(pod_sandbox_id=self.id)
        self.node.runtime("StopPodSandbox", request, cri.StopPodSandboxResponse)

    def remove(self) -> None:
        """Stop and remove it, as kubelet does."""
        self.stop()
        request = cri.RemovePodSandboxRequest(pod_sandbox_id=self.id)
        self.node.runtime("RemovePodSandbox", request, cri.RemovePodSandboxResponse)


class TestContainer:
    """A container. `log_path` is its CRI log file."""

    __test__ = False

    def __init__(self, pod: TestPod, container_id: str, log_path: Path) -> None:
        self.pod = pod
        self.id = container_id
        self.log_path = log_path

    def start(self) -> None:
        request = cri.StartContainerRequest(container_id=self.id)
        self.pod.node.runtime("StartContainer", request, cri.StartContainerResponse)

    def status(self) -> cri.ContainerStatus:
        return self._status(verbose=False)[0]

    def info(self) -> dict[str, Any]:
        """noded's details: pid, bundle, cgroup."""
        return self._status(verbose=True)[1]

    def _status(self, *, verbose: bool) -> tuple[cri.ContainerStatus, dict[str, Any]]:
        request = cri.ContainerStatusRequest(container_id=self.id, verbose=verbose)
        reply = self.pod.node.runtime("ContainerStatus", request, cri.ContainerStatusResponse)
        assert reply.status is not None
        return reply.status, json.loads(reply.info.get("info", "{}"))

    @property
    def running(self) -> bool:
        return self.status().state == cri.ContainerState.CONTAINER_RUNNING

    def wait(self, seconds: float = 30.0) -> cri.ContainerStatus:
        """The status once it has exited."""
        deadline = time.monotonic() + seconds
        while (status := self.status()).state != cri.ContainerState.CONTAINER_EXITED:
            assert time.monotonic() < deadline, f"{self.id} has not exited after {seconds:g} s: {status}"
            time.sleep(_POLL_SECONDS)
        return status

    def exec(self, *command: str, timeout_seconds: int = 0) -> cri.ExecSyncResponse:
        """ExecSync; one word is a script for the shell."""
        words = ["/bin/sh", "-c", command[0]] if len(command) == 1 else list(command)
        request = cri.ExecSyncRequest(container_id=self.id, cmd=words, timeout=timeout_seconds)
        return self.pod.node.runtime("ExecSync", request, cri.ExecSyncResponse)

    def open(self, *command: str, tty: bool = False) -> Session:
        """Start a command with input and output, as `kubectl exec -i` does; one word is a script."""
        words = ["/bin/sh", "-c", command[0]] if len(command) == 1 else list(command)
        request = cri.ExecRequest(
            container_id=self.id, cmd=words, tty=tty, stdin=True, stdout=True, stderr=not tty
        )
        return Session(self.pod.node.runtime("Exec", request, cri.ExecResponse).url, COMMAND)

    def attach(self, *, tty: bool = False) -> Session:
        """Connect to the streams of its own process."""
        request = cri.AttachRequest(container_id=self.id, tty=tty, stdin=True, stdout=True, stderr=not tty)
        return Session(self.pod.node.runtime("Attach", request, cri.AttachResponse).url, COMMAND)

    def stats(self) -> cri.ContainerStats:
        request = cri.ContainerStatsRequest(container_id=self.id)
        reply = self.pod.node.runtime("ContainerStats", request, cri.ContainerStatsResponse)
        assert reply.stats is not None
        return reply.stats

    def stop(self, grace_seconds: int = 0) -> None:
        request = cri.StopContainerRequest(container_id=self.id, timeout=grace_seconds)
        self.pod.node.runtime("StopContainer", request, cri.StopContainerResponse)

    def remove(self) -> None:
        request = cri.RemoveContainerRequest(container_id=self.id)
        self.pod.node.runtime("RemoveContainer", request, cri.RemoveContainerResponse)

    def update(self, memory_bytes: int) -> None:
        """Set another memory limit."""
        request = cri.UpdateContainerResourcesRequest(
            container_id=self.id, linux=cri.LinuxContainerResources(memory_limit_in_bytes=memory_bytes)
        )
        self.pod.node.runtime("UpdateContainerResources", request, cri.UpdateContainerResourcesResponse)

    def reopen_log(self) -> None:
        request = cri.ReopenContainerLogRequest(container_id=self.id)
        self.pod.node.runtime("ReopenContainerLog", request, cri.ReopenContainerLogResponse)

    def log(self, path: Path | None = None) -> str:
        """What it wrote, without the times; `path` is a rotated file."""
        lines = (path or self.log_path).read_bytes().splitlines()
        renderer = Renderer()
        return b"".join(renderer.render(parse(line)) for line in lines).decode(errors="replace")
