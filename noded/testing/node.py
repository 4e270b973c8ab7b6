"""A noded with directories, configuration and a pod network of its own, and a client in plain calls.

    with TestNode([HandlerCase("demo", 'type = "demo"')]) as node:
        pod = node.run_pod("demo")
        container = pod.run("echo hello")
        assert container.wait().exit_code == 0

It leaves the host as it was; what it could not remove is an error. Needs root.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import time
from collections.abc import Coroutine, Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from betterproto2 import Message

from noded.cli.client import Daemon
from noded.cli.demo import image, network, traces
from noded.cli.demo.node import Node
from noded.cli.run import cgroup_parent
from noded.errors import Internal
from noded.proto.noded.admin import v1 as admin
from noded.proto.runtime import v1 as cri
from noded.testing.cases import HandlerCase
from noded.testing.pods import TestPod

Result = TypeVar("Result")
Reply = TypeVar("Reply", bound=Message)

CALL_SECONDS = 120.0
STALLED_SECONDS = 1.0  # what is stopped by a signal is continued, and then given up, so soon


class TestNode:
    """One daemon, started on entry, removed with all its traces on exit.

    Args:
        cases: handlers to configure beside runc and crun.
    """

    __test__ = False  # its name begins as pytest's classes do

    def __init__(self, cases: Iterable[HandlerCase]) -> None:
        self._cases = tuple(cases)
        self._node = Node(f"noded-demo-{secrets.token_hex(3)}")
        self._runner = asyncio.Runner()
        self._stack = ExitStack()
        self._before: traces.HostBefore | None = None
        self.image = ""  # id of an image with busybox, a shell and a web server

    # life

    def __enter__(self) -> TestNode:
        self._before = traces.HostBefore()
        self._stack.enter_context(self._node.claim())
        try:
            default = self._cases[0].name if self._cases else "runc"
            self._node.prepare(default, network.choose_subnet(), stalled_seconds=STALLED_SECONDS)
            with self.config.open("a") as file:
                file.writelines(f"[runtimes.{case.name}]\n{case.toml}\n" for case in self._cases)
            image.write_layout(self._node.image, image.find_busybox())
            self.start()
            request = admin.LoadImageRequest(path=str(self._node.image))
            self.image = self.admin("LoadImage", request, admin.LoadImageResponse).images[0].id
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._node.running:
                self.remove_pods()
                self.stop()
        finally:
            leftovers = self._remove()
        if kind is None and leftovers:
            raise Internal(f"noded left on this host: {'; '.join(leftovers)}")

    def _remove(self) -> list[str]:
        assert self._before is not None
        if self._node.running:
            self.stop()
        leftovers = traces.remove_all(self._node, self._before)
        self._stack.close()
        self._runner.close()
        return leftovers

    def start(self) -> None:
        self._wait(self._node.start())

    def stop(self) -> None:
        """SIGTERM; pods go on."""
        self._wait(self._node.stop())

    def kill(self) -> None:
        """SIGKILL; pods go on."""
        os.kill(self._node.pid, signal.SIGKILL)
        self._wait(self._node.stop())

    def reload(self) -> str:
        """SIGHUP; return the log from then on, once the reload is over."""
        before = len(self._node.log.read_text(errors="replace"))
        os.kill(self._node.pid, signal.SIGHUP)
        over = ("configuration reloaded", "configuration not reloaded")

        def since() -> str:
            text = self._node.log.read_text(errors="replace")[before:]
            return text if any(words in text for words in over) else ""

        return str(eventually(since, 60, "the configuration is reloaded"))

    @property
    def pid(self) -> int:
        return self._node.pid

    @property
    def address(self) -> str:
        """The daemon's socket, e.g. for crictl."""
        return self._node.address

    @property
    def config(self) -> Path:
        """The daemon's configuration file."""
        return self._node.directory / "noded.toml"

    @property
    def state(self) -> Path:
        return self._node.state

    @property
    def logs(self) -> Path:
        """Where pods keep their log directories."""
        return self._node.pod_logs

    def log_end(self, lines: int = 100) -> str:
        """The end of the daemon's log."""
        return self._node.log_end(lines)

    def _wait(self, call: Coroutine[Any, Any, Result]) -> Result:
        return self._runner.run(call)

    # calls

    def runtime(self, method: str, request: Message, reply: type[Reply]) -> Reply:
        """Call a method of the CRI RuntimeService. Raises what `noded.cli.client.Daemon` does."""

        async def call() -> Reply:
            async with Daemon(self.address) as daemon:
                return await daemon.runtime(method, request, reply, CALL_SECONDS)

        return self._wait(call())

    def admin(self, method: str, request: Message, reply: type[Reply]) -> Reply:
        """Call a method of noded's Admin service."""

        async def call() -> Reply:
            async with Daemon(self.address) as daemon:
                return await daemon.admin(method, request, reply, CALL_SECONDS)

        return self._wait(call())

    # pods

    def run_pod(self, handler: str, *, memory_bytes: int = 0, share_pids: bool = False) -> TestPod:
        """Run a pod sandbox; `memory_bytes` is a limit of the pod as a whole."""
        driver = self.runtime("RuntimeConfig", cri.RuntimeConfigRequest(), cri.RuntimeConfigResponse)
        systemd = driver.linux is not None and driver.linux.cgroup_driver == cri.CgroupDriver.SYSTEMD
        name = f"pod-{secrets.token_hex(3)}"
        directory = self.logs / name
        directory.mkdir()
        pids = cri.NamespaceMode.POD if share_pids else cri.NamespaceMode.CONTAINER
        config = cri.PodSandboxConfig(
            metadata=cri.PodSandboxMetadata(name=name, namespace="default", uid=name),
            hostname=name,
            log_directory=str(directory),
            linux=cri.LinuxPodSandboxConfig(
                cgroup_parent=cgroup_parent(self._node.name, systemd=systemd),
                security_context=cri.LinuxSandboxSecurityContext(
                    namespace_options=cri.NamespaceOption(pid=pids)
                ),
                resources=cri.LinuxContainerResources(memory_limit_in_bytes=memory_bytes)
                if memory_bytes
                else None,
            ),
        )
        request = cri.RunPodSandboxRequest(config=config, runtime_handler=handler)
        pod_id = self.runtime("RunPodSandbox", request, cri.RunPodSandboxResponse).pod_sandbox_id
        return TestPod(self, pod_id, config)

    def pods(self) -> list[str]:
        """Ids of all pod sandboxes."""
        listed = self.runtime("ListPodSandbox", cri.ListPodSandboxRequest(), cri.ListPodSandboxResponse)
        return [item.id for item in listed.items]

    def remove_pods(self) -> None:
        """Stop and remove every pod."""
        for pod_id in self.pods():
            TestPod(self, pod_id, cri.PodSandboxConfig()).remove()


def eventually(check: Any, seconds: float, what: str) -> Any:
    """Ask until the answer is true; return it. For facts of which nobody tells."""
    deadline = time.monotonic() + seconds
    while not (answer := check()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)
    return answer
