"""The demo's pod: the CRI calls that a kubelet would make, in their order."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path

from noded.cli.client import Daemon
from noded.cli.log_lines import Renderer, parse
from noded.cli.run import cgroup_parent
from noded.errors import Internal, Unavailable
from noded.proto.noded.admin import v1 as admin
from noded.proto.runtime import v1 as cri

_SETUP_SECONDS = 120.0
_SERVER_START_SECONDS = 5.0
_RETRY_SECONDS = 0.05


class Pod:
    """One pod sandbox with one container, through an open connection to the daemon."""

    def __init__(self, daemon: Daemon, name: str, logs: Path, runtime: str) -> None:
        self._daemon = daemon
        self._name = name
        self._logs = logs
        self._runtime = runtime
        self._config = cri.PodSandboxConfig()
        self.sandbox_id = ""
        self.container_id = ""

    async def load_image(self, layout: Path) -> str:
        """Load an OCI layout; return the image's id."""
        reply = await self._daemon.admin(
            "LoadImage", admin.LoadImageRequest(path=str(layout)), admin.LoadImageResponse, _SETUP_SECONDS
        )
        return reply.images[0].id

    async def run_sandbox(self) -> str:
        """RunPodSandbox; return the pod's IP address."""
        driver = await self._daemon.runtime(
            "RuntimeConfig", cri.RuntimeConfigRequest(), cri.RuntimeConfigResponse
        )
        systemd = driver.linux is not None and driver.linux.cgroup_driver == cri.CgroupDriver.SYSTEMD
        self._config = cri.PodSandboxConfig(
            metadata=cri.PodSandboxMetadata(name="demo", namespace="default", uid=str(uuid.uuid4())),
            hostname="demo",
            log_directory=str(self._logs),
            labels={"app": "demo"},
            linux=cri.LinuxPodSandboxConfig(cgroup_parent=cgroup_parent(self._name, systemd=systemd)),
        )
        request = cri.RunPodSandboxRequest(config=self._config, runtime_handler=self._runtime)
        reply = await self._daemon.runtime(
            "RunPodSandbox", request, cri.RunPodSandboxResponse, _SETUP_SECONDS
        )
        self.sandbox_id = reply.pod_sandbox_id
        status = await self._daemon.runtime(
            "PodSandboxStatus",
            cri.PodSandboxStatusRequest(pod_sandbox_id=self.sandbox_id),
            cri.PodSandboxStatusResponse,
        )
        if status.status is None or status.status.network is None or not status.status.network.ip:
            raise Internal("the pod sandbox has no IP address")
        return status.status.network.ip

    async def start_container(self, image_id: str) -> str:
        """CreateContainer and StartContainer; return the container's id."""
        config = cri.ContainerConfig(
            metadata=cri.ContainerMetadata(name="web"),
            image=cri.ImageSpec(image=image_id),
            log_path="web.log",
            linux=cri.LinuxContainerConfig(
                resources=cri.LinuxContainerResources(memory_limit_in_bytes=64 << 20, cpu_shares=128)
            ),
        )
        created = await self._daemon.runtime(
            "CreateContainer",
            cri.CreateContainerRequest(
                pod_sandbox_id=self.sandbox_id, config=config, sandbox_config=self._config
            ),
            cri.CreateContainerResponse,
            _SETUP_SECONDS,
        )
        self.container_id = created.container_id
        await self._daemon.runtime(
            "StartContainer",
            cri.StartContainerRequest(container_id=self.container_id),
            cri.StartContainerResponse,
            _SETUP_SECONDS,
        )
        return self.container_id

    async def execute(self, *command: str) -> str:
        """ExecSync; return what the command wrote."""
        reply = await self._daemon.runtime(
            "ExecSync",
            cri.ExecSyncRequest(container_id=self.container_id, cmd=list(command), timeout=10),
            cri.ExecSyncResponse,
            20.0,
        )
        if reply.exit_code:
            raise Internal(f"{' '.join(command)} ended with status {reply.exit_code}: {reply.stderr!r}")
        return reply.stdout.decode(errors="replace")

    def log(self) -> str:
        """What the container wrote so far, from its CRI log file."""
        renderer = Renderer()
        lines = (self._logs / "web.log").read_bytes().splitlines()
        return b"".join(renderer.render(parse(line)) for line in lines).decode(errors="replace")

    async def remove(self) -> None:
        """Stop and remove the pod with its container, as kubelet does. Idempotent."""
        listed = await self._daemon.runtime(
            "ListPodSandbox", cri.ListPodSandboxRequest(), cri.ListPodSandboxResponse
        )
        # From the list: a sandbox whose RunPodSandbox was interrupted is there too.
        for sandbox in listed.items:
            await self._daemon.runtime(
                "StopPodSandbox",
                cri.StopPodSandboxRequest(pod_sandbox_id=sandbox.id),
                cri.StopPodSandboxResponse,
                _SETUP_SECONDS,
            )
            await self._daemon.runtime(
                "RemovePodSandbox",
                cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox.id),
                cri.RemovePodSandboxResponse,
                _SETUP_SECONDS,
            )


async def http_get(host: str, path: str = "/") -> tuple[str, str]:
    """Ask a web server that may still be starting; return status line and body.

    Raises: Unavailable when it does not listen within 5 seconds.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _SERVER_START_SECONDS
    while True:
        try:
            reader, writer = await asyncio.open_connection(host, 80)
            break
        except ConnectionRefusedError:
            # StartContainer returns when the process runs, not when it listens.
            if loop.time() > deadline:
                raise Unavailable(f"nothing listens at {host}:80") from None
            await asyncio.sleep(_RETRY_SECONDS)
    try:
        async with asyncio.timeout(10):
            writer.write(f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
            answer = (await reader.read()).decode(errors="replace")
    finally:
        writer.close()
    head, _, body = answer.partition("\r\n\r\n")
    return head.partition("\r\n")[0], body
