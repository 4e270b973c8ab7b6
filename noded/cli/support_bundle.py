"""`noded support-bundle`: what a person who helps wants to see, in one tar file.

Never in it: credentials of registries, and the environment, arguments and annotations of containers. A part
that cannot be had is a file that says why; the bundle is made all the same.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from noded import logs, settings
from noded.checks import rules
from noded.checks.result import document
from noded.cli import find
from noded.cli.check import collect
from noded.cli.client import QUERY_SECONDS, Daemon, wait_for
from noded.cli.documents.node import Bundle
from noded.cli.masking import masked
from noded.cli.table import print_json
from noded.config_text import render
from noded.errors import NodedError
from noded.proto.noded.admin import v1 as admin
from noded.proto.runtime import v1 as cri

_LOG_LINES = "5000"
_PROGRAM_SECONDS = 20.0


def support_bundle(arguments: argparse.Namespace) -> int:
    """Write the file, for root's eyes only, and print its path."""
    logs.setup("error", "console")
    name = f"noded-support-{platform.node()}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    path = Path(arguments.output or f"{name}.tar.gz")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    made: Bundle = {"path": str(path), "parts": {}}
    with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
        for part, make in _parts(arguments).items():
            try:
                content = make()
                made["parts"][part] = ""
            except (NodedError, OSError, subprocess.SubprocessError) as error:
                content = f"not to be had: {error}\n"
                made["parts"][part] = str(error)
            data = content.encode(errors="replace")
            member = tarfile.TarInfo(f"{name}/{part}")
            member.size, member.mtime, member.mode = len(data), int(time.time()), 0o600
            archive.addfile(member, io.BytesIO(data))
    if arguments.json:
        print_json(made)
    else:
        print(path)
    return 0


def _parts(arguments: argparse.Namespace) -> dict[str, Callable[[], str]]:
    config = Path(arguments.config)

    def ask(what: Callable[[Daemon], Any]) -> Callable[[], str]:
        return lambda: _json(wait_for(_asked(arguments.address, what)))

    return {
        "config.toml": lambda: masked(render(settings.load(config))),
        "check.json": lambda: _json(_masked(_check(config))),
        "status.json": ask(_status),
        "pods.json": ask(_pods),
        "containers.json": ask(_containers),
        "images.json": ask(_images),
        "debts.json": ask(_debts),
        "versions.txt": _versions,
        "journal.txt": lambda: masked(_output("journalctl", "-u", "noded", "-n", _LOG_LINES, "--no-pager")),
        "mounts.txt": lambda: Path("/proc/self/mountinfo").read_text(errors="replace"),
        "cgroups.txt": lambda: Path("/proc/cgroups").read_text() + Path("/proc/self/cgroup").read_text(),
        "memory.txt": lambda: Path("/proc/meminfo").read_text(),
    }


def _check(config: Path) -> dict[str, Any]:
    found = collect(config)
    return document(rules.judge(found), found.program_version)


def _masked(value: Any) -> Any:
    """A document with every text in it masked: errors may tell what a program has said."""
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, dict):
        return {key: _masked(each) for key, each in value.items()}
    return [_masked(each) for each in value] if isinstance(value, list) else value


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _output(*command: str) -> str:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace", timeout=_PROGRAM_SECONDS, check=False,
    )  # fmt: skip
    return done.stdout


def _versions() -> str:
    from importlib.metadata import distributions

    installed = sorted({f"{each.name} {each.version}" for each in distributions()})
    system = " ".join(platform.uname())
    return "\n".join([system, f"Python {sys.version}", *installed]) + "\n"


async def _asked(address: str, what: Callable[[Daemon], Any]) -> Any:
    async with Daemon(address) as daemon:
        return await what(daemon)


async def _status(daemon: Daemon) -> dict[str, Any]:
    reply = await daemon.runtime("Status", cri.StatusRequest(), cri.StatusResponse, QUERY_SECONDS)
    return reply.to_dict()


async def _pods(daemon: Daemon) -> list[dict[str, Any]]:
    return [
        {
            "id": each.id,
            "name": f"{each.metadata.namespace}/{each.metadata.name}" if each.metadata else "",
            "state": each.state.name,
            "created_at_ns": each.created_at,
            "runtime_handler": each.runtime_handler,
        }
        for each in await find.pods(daemon)
    ]


async def _containers(daemon: Daemon) -> list[dict[str, Any]]:
    return [
        {
            "id": each.id,
            "name": each.metadata.name if each.metadata else "",
            "pod_id": each.pod_sandbox_id,
            "state": each.state.name,
            "image": each.image_ref,
            "created_at_ns": each.created_at,
        }
        for each in await find.containers(daemon)
    ]


async def _images(daemon: Daemon) -> list[dict[str, Any]]:
    reply = await daemon.image("ListImages", cri.ListImagesRequest(), cri.ListImagesResponse, QUERY_SECONDS)
    return [
        {"id": each.id, "tags": list(each.repo_tags), "size_bytes": each.size, "pinned": each.pinned}
        for each in reply.images
    ]


async def _debts(daemon: Daemon) -> list[dict[str, Any]]:
    request = admin.ListDebtsRequest()
    reply = await daemon.admin("ListDebts", request, admin.ListDebtsResponse, QUERY_SECONDS)
    debts: list[dict[str, Any]] = _masked([each.to_dict() for each in reply.debts])
    return debts
