"""`noded run`: one pod with one container, to try an image on a handler.

Output comes from the container's log, so that nothing is lost between start and attach; input goes
over an attach session.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import shutil
import signal
import sys
import uuid
from contextlib import nullcontext, suppress
from pathlib import Path

from noded.cli import follow
from noded.cli.client import Daemon, wait_for
from noded.cli.log_lines import Renderer
from noded.cli.logs import finished, print_lines
from noded.cli.pull_progress import shown
from noded.cli.session import Session, raw_terminal
from noded.errors import InvalidArgument, NodedError
from noded.proto.runtime import v1 as cri

_SETUP_SECONDS = 300.0
_STOP_SECONDS = 10
_POD_LOGS = Path("/var/log/pods")  # where kubelet has them, too


def run(arguments: argparse.Namespace) -> int:
    """Run the pod to its end; the exit code of its command is the exit status."""
    with raw_terminal(arguments.tty and arguments.stdin):
        return wait_for(_run(arguments))


def cgroup_parent(name: str, *, systemd: bool) -> str:
    """The cgroup under which a pod lives; a dash in a slice's name would nest it (systemd.slice(5))."""
    return f"{name.replace('-', '')}.slice" if systemd else f"/{name}"


def sandbox_config(arguments: argparse.Namespace, *, systemd: bool) -> cri.PodSandboxConfig:
    """The pod of one command line."""
    name = arguments.name or f"run-{secrets.token_hex(3)}"
    uid = str(uuid.uuid4())
    network = cri.NamespaceMode.NODE if arguments.host_network else cri.NamespaceMode.POD
    return cri.PodSandboxConfig(
        metadata=cri.PodSandboxMetadata(name=name, namespace="default", uid=uid),
        hostname=name[:63],
        log_directory=str(_POD_LOGS / f"default_{name}_{uid}"),
        labels={"noded.run": name},
        linux=cri.LinuxPodSandboxConfig(
            cgroup_parent=cgroup_parent("noded-run", systemd=systemd),
            security_context=cri.LinuxSandboxSecurityContext(
                namespace_options=cri.NamespaceOption(network=network, pid=cri.NamespaceMode.CONTAINER)
            ),
        ),
    )


def container_config(arguments: argparse.Namespace, image: str) -> cri.ContainerConfig:
    """The container of one command line. Raises: InvalidArgument for a variable without a value."""
    variables = []
    for text in arguments.env:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise InvalidArgument(f"--env {text}: expected NAME=VALUE")
        variables.append(cri.KeyValue(key=key, value=value.encode()))
    return cri.ContainerConfig(
        metadata=cri.ContainerMetadata(name="main"),
        image=cri.ImageSpec(image=image, user_specified_image=arguments.image),
        # A command replaces the image's own; without one the image says what runs.
        command=[arguments.command_name] if arguments.command_name else [],
        args=list(arguments.arguments),
        envs=variables,
        log_path="main/0.log",
        stdin=arguments.stdin,
        stdin_once=arguments.stdin,
        tty=arguments.tty,
    )


async def _run(arguments: argparse.Namespace) -> int:
    async with Daemon(arguments.address) as daemon:
        driver = await daemon.runtime("RuntimeConfig", cri.RuntimeConfigRequest(), cri.RuntimeConfigResponse)
        systemd = driver.linux is not None and driver.linux.cgroup_driver == cri.CgroupDriver.SYSTEMD
        pod = sandbox_config(arguments, systemd=systemd)
        container = container_config(arguments, await _image(daemon, arguments.image, pod))
        main = asyncio.current_task()
        assert main is not None
        for number in (signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, main.cancel)
        sandbox_id = ""
        try:
            reply = await daemon.runtime(
                "RunPodSandbox",
                cri.RunPodSandboxRequest(config=pod, runtime_handler=arguments.runtime),
                cri.RunPodSandboxResponse,
                _SETUP_SECONDS,
            )
            sandbox_id = reply.pod_sandbox_id
            return await _container(daemon, arguments, sandbox_id, pod, container)
        finally:
            # Shielded by being a task of its own: a second Ctrl-C must not leave the pod half removed.
            if arguments.rm:
                await asyncio.shield(asyncio.ensure_future(_remove(daemon, pod, sandbox_id)))


async def _container(
    daemon: Daemon,
    arguments: argparse.Namespace,
    sandbox_id: str,
    pod: cri.PodSandboxConfig,
    config: cri.ContainerConfig,
) -> int:
    log = Path(pod.log_directory) / config.log_path
    log.parent.mkdir(parents=True, exist_ok=True)
    created = await daemon.runtime(
        "CreateContainer",
        cri.CreateContainerRequest(pod_sandbox_id=sandbox_id, config=config, sandbox_config=pod),
        cri.CreateContainerResponse,
        _SETUP_SECONDS,
    )
    identifier = created.container_id
    exited, exits = os.pipe()
    watching = asyncio.ensure_future(_watch(daemon, identifier, exits))
    await daemon.runtime(
        "StartContainer",
        cri.StartContainerRequest(container_id=identifier),
        cri.StartContainerResponse,
        _SETUP_SECONDS,
    )
    request = cri.ContainerStatusRequest(container_id=identifier)
    status = await daemon.runtime("ContainerStatus", request, cri.ContainerStatusResponse)
    if status.status is None or status.status.state != cri.ContainerState.CONTAINER_RUNNING:
        watching.cancel()  # it was over before anybody could watch
    input_ = asyncio.ensure_future(_attach(daemon, identifier, arguments)) if arguments.stdin else None
    try:
        lines = follow.follow(log, 0, exited, lambda: finished(arguments.address, identifier))
        # A thread: following waits for inotify and for the process. It ends with the container.
        await asyncio.to_thread(print_lines, lines, Renderer(timestamps=False))
    except asyncio.CancelledError:
        stop = cri.StopContainerRequest(container_id=identifier, timeout=_STOP_SECONDS)
        ending = daemon.runtime("StopContainer", stop, cri.StopContainerResponse, _SETUP_SECONDS)
        await asyncio.shield(asyncio.ensure_future(ending))
        raise
    finally:
        if input_ is not None:
            input_.cancel()
        watching.cancel()
        os.close(exited)
    ended = await daemon.runtime("ContainerStatus", request, cri.ContainerStatusResponse)
    if not arguments.rm:
        print(f"pod {sandbox_id}", file=sys.stderr)
    return ended.status.exit_code if ended.status else 0


async def _watch(daemon: Daemon, identifier: str, exits: int) -> None:
    """Close the write end of a pipe when the container has stopped, or when that cannot be told any more."""
    try:
        async for event in daemon.runtime_stream(
            "GetContainerEvents", cri.GetEventsRequest(), cri.ContainerEventResponse
        ):
            stopped = event.container_event_type == cri.ContainerEventType.CONTAINER_STOPPED_EVENT
            if stopped and event.container_id == identifier:
                return
    except NodedError:
        return  # the follower then asks the daemon
    finally:
        os.close(exits)


async def _image(daemon: Daemon, name: str, pod: cri.PodSandboxConfig) -> str:
    """The id of an image, pulled if it is not here."""
    spec = cri.ImageSpec(image=name)
    found = await daemon.image("ImageStatus", cri.ImageStatusRequest(image=spec), cri.ImageStatusResponse)
    if found.image is not None:
        return found.image.id
    async with shown(daemon, name) if sys.stderr.isatty() else nullcontext():
        request = cri.PullImageRequest(image=spec, sandbox_config=pod)
        return (await daemon.image("PullImage", request, cri.PullImageResponse, None)).image_ref


async def _attach(daemon: Daemon, identifier: str, arguments: argparse.Namespace) -> None:
    request = cri.AttachRequest(container_id=identifier, stdin=True, tty=arguments.tty)
    try:
        reply = await daemon.runtime("Attach", request, cri.AttachResponse)
        await Session(reply.url, stdin=True, tty=arguments.tty).run()
    except NodedError:
        # It has exited before it could be given any input: its log and its exit code tell.
        return


async def _remove(daemon: Daemon, pod: cri.PodSandboxConfig, sandbox_id: str) -> None:
    """Stop and remove the pod. One whose start was interrupted is found by its label."""
    ids = [sandbox_id]
    if not sandbox_id:
        wanted = cri.PodSandboxFilter(label_selector=dict(pod.labels))
        listed = await daemon.runtime(
            "ListPodSandbox", cri.ListPodSandboxRequest(filter=wanted), cri.ListPodSandboxResponse
        )
        ids = [each.id for each in listed.items]
    for each in ids:
        stop, remove = cri.StopPodSandboxRequest(each), cri.RemovePodSandboxRequest(each)
        await daemon.runtime("StopPodSandbox", stop, cri.StopPodSandboxResponse, _SETUP_SECONDS)
        await daemon.runtime("RemovePodSandbox", remove, cri.RemovePodSandboxResponse, _SETUP_SECONDS)
    with suppress(FileNotFoundError):
        shutil.rmtree(pod.log_directory)
