"""`noded demo`: one pod, from an image to a clean node, with every step shown."""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import shutil
import signal
import sys
from pathlib import Path

from noded.cli.client import Daemon
from noded.cli.demo import image, network, traces
from noded.cli.demo.narration import Narration
from noded.cli.demo.node import Node
from noded.cli.demo.pod import Pod, http_get
from noded.cli.quantities import short_id, size
from noded.errors import FailedPrecondition, NodedError, PermissionDenied
from noded.proto.runtime import v1 as cri

_REMOVE_SECONDS = 60.0


def demo(arguments: argparse.Namespace) -> int:
    """Run the demo. Exits 0 when every step worked and nothing was left on the host."""
    if os.geteuid() != 0:
        raise PermissionDenied(
            "the demo makes namespaces, mounts and a bridge: run it as root (sudo make demo)"
        )
    narration = Narration()
    narration.title("noded demo: one pod, from an image to a clean node")
    with asyncio.Runner() as runner:
        try:
            return runner.run(_run(arguments, narration))
        except KeyboardInterrupt:
            return 130


async def _run(arguments: argparse.Namespace, narration: Narration) -> int:
    before = traces.HostBefore()
    for name in await asyncio.to_thread(traces.sweep_killed_demos, before):
        print(f"Removed what {name} had left: it was killed.")
    node = Node(f"noded-demo-{secrets.token_hex(3)}")
    with node.claim():
        return await _tell(node, before, arguments, narration)


async def _tell(
    node: Node, before: traces.HostBefore, arguments: argparse.Namespace, narration: Narration
) -> int:
    story = asyncio.create_task(_story(node, arguments, narration))
    interrupted: list[signal.Signals] = []

    def interrupt(number: signal.Signals) -> None:
        # Ends the story only: nothing may keep the clean-up from its work.
        interrupted.append(number)
        story.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, interrupt, number)
    await asyncio.wait((story,))
    failure = None if story.cancelled() else story.exception()
    if story.cancelled():
        print("\nInterrupted: cleaning up.")
    with narration.step("Leave the machine as it was"):
        if failure is not None:
            narration.say("noded's log", "")
            narration.quote(node.log_end())
        leftovers = await _clean_up(node, before, narration)
        narration.say("removed", f"daemon, bridge {node.bridge}, {node.directory}")
        for leftover in leftovers:
            narration.say("left over", leftover)
    if failure is not None:
        raise failure
    if interrupted:
        return 128 + interrupted[0]
    if leftovers:
        return 1
    print("\nAll went well. `noded serve` runs it for a kubelet: see README.md.")
    return 0


async def _story(node: Node, arguments: argparse.Namespace, narration: Narration) -> None:
    with narration.step("Find the programs that do the work"):
        for program in (arguments.runtime, "conmon"):
            narration.say(program, _program(program))
    with narration.step("Assemble a container image, no registry needed"):
        node.prepare(arguments.runtime, network.choose_subnet())
        busybox = image.find_busybox()
        digest = image.write_layout(node.image, busybox)
        narration.say("image", f"{image.REFERENCE} from {busybox} ({size(busybox.stat().st_size)})")
        narration.say("manifest", digest)
    with narration.step("Start noded with a configuration of its own"):
        await node.start()
        narration.say("process", str(node.pid))
        narration.say("socket", node.address)
    async with Daemon(node.address) as daemon:
        version = await daemon.runtime("Version", cri.VersionRequest(), cri.VersionResponse)
        narration.say(
            "answers", f"{version.runtime_name} {version.runtime_version}, CRI {version.runtime_api_version}"
        )
        pod = Pod(daemon, node.name, node.pod_logs, arguments.runtime)
        with narration.step("Load the image into noded's store"):
            image_id = await pod.load_image(node.image)
            narration.say("image id", image_id)
        with narration.step("Run a pod sandbox: namespaces, cgroup, network"):
            address = await pod.run_sandbox()
            narration.say("pod", short_id(pod.sandbox_id))
            narration.say("IP", f"{address} on bridge {node.bridge}")
        with narration.step("Create and start a container that serves HTTP"):
            narration.say("container", short_id(await pod.start_container(image_id)))
        with narration.step(f"GET http://{address}/"):
            status, body = await http_get(address)
            narration.say("status", status)
            narration.quote(body)
            if body.strip() != image.GREETING:
                raise FailedPrecondition(f"expected the greeting of the demo image, got {body!r}")
        with narration.step("Run a command in it: hostname; id"):
            narration.quote(await pod.execute("sh", "-c", "hostname; id"))
        with narration.step("Read its log"):
            narration.quote(pod.log())
        if arguments.hold:
            await _hold(node, address)
        with narration.step("Stop and remove the pod"):
            await pod.remove()


async def _hold(node: Node, address: str) -> None:
    print("\nThe pod is yours until Enter or Ctrl-C. In another terminal:")
    print(f"    curl http://{address}/")
    print(f"    {Path(sys.argv[0])} ps --address {node.address}")
    print(f"    crictl -r {node.address} pods", flush=True)
    loop = asyncio.get_running_loop()
    pressed: asyncio.Future[None] = loop.create_future()
    loop.add_reader(sys.stdin, _resolve, pressed)
    try:
        await pressed
    finally:
        loop.remove_reader(sys.stdin)


def _resolve(pressed: asyncio.Future[None]) -> None:
    if not pressed.done():
        pressed.set_result(None)


async def _clean_up(node: Node, before: traces.HostBefore, narration: Narration) -> list[str]:
    if node.running:
        # After success there is no pod any more; after a failure the daemon knows best what there is.
        try:
            async with asyncio.timeout(_REMOVE_SECONDS), Daemon(node.address) as daemon:
                await Pod(daemon, node.name, node.pod_logs, "").remove()
        except (NodedError, TimeoutError) as error:
            narration.say("problem", f"noded could not remove the pod: {error}")
        await node.stop()
    return await asyncio.to_thread(traces.remove_all, node, before)


def _program(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/usr/local/sbin:/usr/sbin:/sbin")
    if found is None:
        raise FailedPrecondition(f"{name} is not installed: apt-get install {name}")
    return found
