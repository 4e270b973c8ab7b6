"""`noded wipe`: stop and remove all pods, containers and images that noded has; the configuration stays.

Where no daemon runs, one is started for this alone, on a socket that no kubelet knows, so that networks are
torn down as always.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Literal

from noded import settings
from noded.checks.gather.node import processes
from noded.cli import alone, find
from noded.cli.client import Daemon, wait_for
from noded.cli.documents.node import Wiped
from noded.cli.table import print_json
from noded.errors import FailedPrecondition, NodedError
from noded.host.sockets import somebody_listens
from noded.proto.runtime import v1 as cri

_POD_SECONDS = 120.0
_AT_ONCE = 4


def wipe(arguments: argparse.Namespace) -> int:
    """Wipe after a confirmation. Exits 0 when nothing is left, 1 with a line for each thing that is."""
    if processes("kubelet") and not arguments.force:
        raise FailedPrecondition("kubelet runs and would start its pods again: stop it first, or use --force")
    config = settings.load(Path(arguments.config))
    if not arguments.force:
        places = f"{config.root} and {config.images.root}" if config.images.root else f"{config.root}"
        print(
            f"All pods, containers and images in {places} will be removed. Type yes to go on: ",
            end="",
            flush=True,
            file=sys.stderr if arguments.json else sys.stdout,
        )
        if sys.stdin.readline().strip() != "yes":
            raise FailedPrecondition("nothing was removed")
    if config.listen.is_socket() and somebody_listens(config.listen):
        done = wait_for(_wipe(f"unix://{config.listen}", arguments))
    else:
        with alone.running(config) as address:
            done = wait_for(_wipe(address, arguments))
    for problem in done["problems"]:
        print(f"noded: {problem}", file=sys.stderr)
    if arguments.json:
        print_json(done)
    return 1 if done["problems"] else 0


async def _wipe(address: str, arguments: argparse.Namespace) -> Wiped:
    done: Wiped = {"pods": [], "images": [], "problems": []}

    def removed(kind: Literal["pods", "images"], identifier: str) -> None:
        done[kind].append(identifier)
        if not arguments.json:
            print(f"removed {kind.removesuffix('s')} {identifier}")

    async with Daemon(address) as daemon:
        limit = asyncio.Semaphore(_AT_ONCE)

        async def remove_pod(identifier: str) -> None:
            async with limit:
                stop, remove = cri.StopPodSandboxRequest(identifier), cri.RemovePodSandboxRequest(identifier)
                try:
                    await daemon.runtime("StopPodSandbox", stop, cri.StopPodSandboxResponse, _POD_SECONDS)
                    await daemon.runtime(
                        "RemovePodSandbox", remove, cri.RemovePodSandboxResponse, _POD_SECONDS
                    )
                    removed("pods", identifier)
                except NodedError as error:
                    done["problems"].append(f"pod {identifier}: {error}")

        await asyncio.gather(*(remove_pod(each.id) for each in await find.pods(daemon)))
        listed = await daemon.image("ListImages", cri.ListImagesRequest(), cri.ListImagesResponse)
        for image in () if arguments.keep_images else listed.images:
            request = cri.RemoveImageRequest(image=cri.ImageSpec(image=image.id))
            try:
                await daemon.image("RemoveImage", request, cri.RemoveImageResponse, _POD_SECONDS)
                removed("images", image.id)
            except NodedError as error:
                done["problems"].append(f"image {image.id}: {error}")
    return done
