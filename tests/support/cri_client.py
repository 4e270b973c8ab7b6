"""An independent CRI client: grpcio with stubs that protoc makes from proto/cri.proto.

It shares no code with noded, so that noded's own codec cannot hide its own mistakes.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import sys
import tempfile
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import grpc

PROTO = Path(__file__).resolve().parents[2] / "proto"
CALL_SECONDS = 60.0


@cache
def stubs() -> tuple[ModuleType, ModuleType, ModuleType, ModuleType]:
    """Generate and import (cri_pb2, cri_pb2_grpc, admin_pb2, admin_pb2_grpc), once per process."""
    from grpc_tools import protoc

    directory = tempfile.TemporaryDirectory(prefix="noded-stubs-")
    arguments = [
        "protoc",
        f"-I{PROTO}",
        f"--python_out={directory.name}",
        f"--grpc_python_out={directory.name}",
    ]
    assert protoc.main([*arguments, "cri.proto", "admin.proto"]) == 0, "protoc failed"
    sys.path.insert(0, directory.name)
    try:
        names = ("cri_pb2", "cri_pb2_grpc", "admin_pb2", "admin_pb2_grpc")
        cri, cri_grpc, admin, admin_grpc = (importlib.import_module(name) for name in names)
    finally:
        sys.path.remove(directory.name)
        directory.cleanup()
    return cri, cri_grpc, admin, admin_grpc


class Cri:
    """A connection. `runtime`, `image` and `admin` are the raw stubs, `pb` and `admin_pb` the messages.

    Args:
        call_seconds: deadline of calls that give none.
    """

    def __init__(self, address: str, call_seconds: float = CALL_SECONDS) -> None:
        self.call_seconds = call_seconds
        self.pb, services, self.admin_pb, admin_services = stubs()
        limit = 16 << 20  # kubelet's
        self.channel = grpc.insecure_channel(
            f"unix:{address.removeprefix('unix://')}",
            options=[
                ("grpc.max_receive_message_length", limit),
                ("grpc.default_authority", "localhost"),
                # A test that restarts the daemon must not wait for a long back-off.
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 500),
                ("grpc.use_local_subchannel_pool", 1),
            ],
        )
        self.runtime = services.RuntimeServiceStub(self.channel)
        self.image = services.ImageServiceStub(self.channel)
        self.admin = admin_services.AdminStub(self.channel)

    def __enter__(self) -> Cri:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.channel.close()

    # requests

    def pod_config(
        self,
        name: str = "",
        *,
        namespace: str = "default",
        uid: str = "",
        attempt: int = 0,
        hostname: str | None = None,
        log_directory: Path | str = "",
        cgroup_parent: str = "",
        network: str = "POD",
        pid: str = "CONTAINER",
        ipc: str = "POD",
        ports: Iterable[tuple[int, int]] = (),
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
        sysctls: Mapping[str, str] | None = None,
    ) -> Any:
        """A PodSandboxConfig; name and uid are random unless given. `ports` = (host port, container port)."""
        pb = self.pb
        name = name or f"pod-{uuid.uuid4().hex[:8]}"
        options = pb.NamespaceOption(
            network=pb.NamespaceMode.Value(network),
            pid=pb.NamespaceMode.Value(pid),
            ipc=pb.NamespaceMode.Value(ipc),
        )
        host_network = network == "NODE"
        return pb.PodSandboxConfig(
            metadata=pb.PodSandboxMetadata(
                name=name, uid=uid or str(uuid.uuid4()), namespace=namespace, attempt=attempt
            ),
            hostname=("" if host_network else name) if hostname is None else hostname,
            log_directory=str(log_directory),
            port_mappings=[
                pb.PortMapping(protocol=pb.TCP, container_port=container, host_port=host)
                for host, container in ports
            ],
            labels=dict(labels or {}),
            annotations=dict(annotations or {}),
            linux=pb.LinuxPodSandboxConfig(
                cgroup_parent=cgroup_parent,
                sysctls=dict(sysctls or {}),
                security_context=pb.LinuxSandboxSecurityContext(namespace_options=options),
            ),
        )

    def container_config(
        self,
        name: str,
        image: str,
        command: Sequence[str] = (),
        args: Sequence[str] = (),
        *,
        attempt: int = 0,
        log_path: str | None = None,
        env: Mapping[str, str] | None = None,
        mounts: Iterable[tuple[Path | str, str]] = (),
        memory_bytes: int = 0,
        cpu_shares: int = 0,
        stdin: bool = False,
        tty: bool = False,
        pid: str = "CONTAINER",
        network: str = "POD",
        ipc: str = "POD",
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
        working_dir: str = "",
    ) -> Any:
        """A ContainerConfig; its log is NAME.log in the pod's directory. `mounts` = (host path, inside)."""
        pb = self.pb
        options = pb.NamespaceOption(
            network=pb.NamespaceMode.Value(network),
            pid=pb.NamespaceMode.Value(pid),
            ipc=pb.NamespaceMode.Value(ipc),
        )
        return pb.ContainerConfig(
            metadata=pb.ContainerMetadata(name=name, attempt=attempt),
            image=pb.ImageSpec(image=image, user_specified_image=image),
            command=list(command),
            args=list(args),
            working_dir=working_dir,
            envs=[pb.KeyValue(key=key, value=value.encode()) for key, value in (env or {}).items()],
            mounts=[pb.Mount(host_path=str(host), container_path=inside) for host, inside in mounts],
            labels=dict(labels or {}),
            annotations=dict(annotations or {}),
            log_path=f"{name}.log" if log_path is None else log_path,
            stdin=stdin,
            tty=tty,
            linux=pb.LinuxContainerConfig(
                resources=pb.LinuxContainerResources(
                    memory_limit_in_bytes=memory_bytes, cpu_shares=cpu_shares
                ),
                security_context=pb.LinuxContainerSecurityContext(namespace_options=options),
            ),
        )

    # calls

    def pull(
        self, reference: str, *, user: str = "", password: str = "", timeout: float | None = None
    ) -> str:
        """PullImage; return the image id."""
        auth = self.pb.AuthConfig(username=user, password=password) if user else None
        request = self.pb.PullImageRequest(image=self.pb.ImageSpec(image=reference), auth=auth)
        return str(self.image.PullImage(request, timeout=timeout or self.call_seconds).image_ref)

    def load(self, path: Path) -> list[str]:
        """Admin.LoadImage; return the image ids."""
        request = self.admin_pb.LoadImageRequest(path=str(path))
        return [image.id for image in self.admin.LoadImage(request, timeout=self.call_seconds).images]

    def run_pod(self, config: Any, handler: str = "", *, timeout: float | None = None) -> str:
        """RunPodSandbox; return the sandbox id."""
        request = self.pb.RunPodSandboxRequest(config=config, runtime_handler=handler)
        return str(self.runtime.RunPodSandbox(request, timeout=timeout or self.call_seconds).pod_sandbox_id)

    def create(self, pod_id: str, config: Any, pod_config: Any, *, timeout: float | None = None) -> str:
        """CreateContainer; return the container id."""
        request = self.pb.CreateContainerRequest(
            pod_sandbox_id=pod_id, config=config, sandbox_config=pod_config
        )
        return str(self.runtime.CreateContainer(request, timeout=timeout or self.call_seconds).container_id)

    def start(self, container_id: str, *, timeout: float | None = None) -> None:
        """StartContainer."""
        self.runtime.StartContainer(
            self.pb.StartContainerRequest(container_id=container_id), timeout=timeout or self.call_seconds
        )

    def run_container(self, pod_id: str, config: Any, pod_config: Any) -> str:
        """CreateContainer and StartContainer; return the container id."""
        container_id = self.create(pod_id, config, pod_config)
        self.start(container_id)
        return container_id

    def exec(self, container_id: str, *command: str, seconds: int = 0, timeout: float | None = None) -> Any:
        """ExecSync; the answer has stdout, stderr (bytes) and exit_code. `seconds` is the CRI timeout."""
        request = self.pb.ExecSyncRequest(container_id=container_id, cmd=list(command), timeout=seconds)
        return self.runtime.ExecSync(request, timeout=timeout or self.call_seconds)

    def pod_status(self, pod_id: str, *, verbose: bool = False) -> Any:
        """PodSandboxStatusResponse."""
        request = self.pb.PodSandboxStatusRequest(pod_sandbox_id=pod_id, verbose=verbose)
        return self.runtime.PodSandboxStatus(request, timeout=self.call_seconds)

    def pod_ip(self, pod_id: str) -> str:
        return str(self.pod_status(pod_id).status.network.ip)

    def status(self, container_id: str) -> Any:
        """ContainerStatus.status."""
        return self.verbose_status(container_id).status

    def verbose_status(self, container_id: str) -> Any:
        """ContainerStatusResponse with `info`."""
        request = self.pb.ContainerStatusRequest(container_id=container_id, verbose=True)
        return self.runtime.ContainerStatus(request, timeout=self.call_seconds)

    def pods(self) -> list[Any]:
        return list(
            self.runtime.ListPodSandbox(self.pb.ListPodSandboxRequest(), timeout=self.call_seconds).items
        )

    def containers(self) -> list[Any]:
        return list(
            self.runtime.ListContainers(self.pb.ListContainersRequest(), timeout=self.call_seconds).containers
        )

    def images(self) -> list[Any]:
        return list(self.image.ListImages(self.pb.ListImagesRequest(), timeout=self.call_seconds).images)

    def stop(self, container_id: str, grace_seconds: int = 0) -> None:
        """StopContainer."""
        request = self.pb.StopContainerRequest(container_id=container_id, timeout=grace_seconds)
        self.runtime.StopContainer(request, timeout=self.call_seconds + grace_seconds)

    def remove(self, container_id: str) -> None:
        """RemoveContainer."""
        self.runtime.RemoveContainer(
            self.pb.RemoveContainerRequest(container_id=container_id), timeout=self.call_seconds
        )

    def stop_pod(self, pod_id: str) -> None:
        """StopPodSandbox."""
        self.runtime.StopPodSandbox(
            self.pb.StopPodSandboxRequest(pod_sandbox_id=pod_id), timeout=self.call_seconds
        )

    def remove_pod(self, pod_id: str) -> None:
        """StopPodSandbox and RemovePodSandbox, as kubelet does."""
        self.stop_pod(pod_id)
        self.runtime.RemovePodSandbox(
            self.pb.RemovePodSandboxRequest(pod_sandbox_id=pod_id), timeout=self.call_seconds
        )

    def remove_all_pods(self) -> None:
        for pod in self.pods():
            self.remove_pod(pod.id)

    def wait_exited(self, container_id: str, seconds: float = 30.0) -> Any:
        """Wait for the end of a container's process and of its bookkeeping; return the status."""
        deadline = time.monotonic() + seconds
        answer = self.verbose_status(container_id)
        pid = json.loads(answer.info.get("info", "{}")).get("pid", 0)
        if pid and answer.status.state == self.pb.CONTAINER_RUNNING:
            _wait_for_process(pid, seconds)
        while answer.status.state not in (self.pb.CONTAINER_EXITED, self.pb.CONTAINER_UNKNOWN):
            assert time.monotonic() < deadline, (
                f"container {container_id} is not EXITED after {seconds} s: {answer}"
            )
            # Between the death and its record lie conmon's last write and one database commit.
            time.sleep(0.02)
            answer = self.verbose_status(container_id)
        return answer.status


def _wait_for_process(pid: int, seconds: float) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        ready, _, _ = select.select([descriptor], [], [], seconds)
        assert ready, f"process {pid} still runs after {seconds} s"
    finally:
        os.close(descriptor)
