"""`noded status` and `noded version`: what the daemon says of itself."""

from __future__ import annotations

import argparse
import json
from importlib.metadata import version as distribution_version
from typing import Any

from noded.cli.client import Daemon, query_seconds, wait_for
from noded.cli.documents.node import DaemonVersion, HandlerFeatures, Status, Versions
from noded.cli.table import print_json, print_table
from noded.errors import Unavailable
from noded.proto.noded.admin import v1 as admin
from noded.proto.runtime import v1 as cri


def version(arguments: argparse.Namespace) -> int:
    """Print the version of this program and, where it answers, of the daemon."""
    here = distribution_version("noded")
    try:
        reply: cri.VersionResponse | None = wait_for(_version(arguments))
    except Unavailable:
        reply = None
    if arguments.json:
        daemon: DaemonVersion | None = None
        if reply is not None:
            daemon = {
                "name": reply.runtime_name,
                "version": reply.runtime_version,
                "cri": reply.runtime_api_version,
            }
        versions: Versions = {"program": here, "daemon": daemon}
        print_json(versions)
        return 0
    print(f"program   noded {here}")
    if reply is None:
        print(f"daemon    not reachable at {arguments.address}")
    else:
        print(f"daemon    {reply.runtime_name} {reply.runtime_version}, CRI {reply.runtime_api_version}")
    return 0


async def _version(arguments: argparse.Namespace) -> cri.VersionResponse:
    async with Daemon(arguments.address) as daemon:
        return await daemon.runtime(
            "Version", cri.VersionRequest(), cri.VersionResponse, query_seconds(arguments.timeout)
        )


def status(arguments: argparse.Namespace) -> int:
    """Print conditions and runtime handlers; exit 1 when a condition is not met."""
    reply, info = wait_for(_status(arguments))
    conditions = reply.status.conditions if reply.status else []
    if arguments.json:
        print_json(_document(reply, info))
    else:
        print_table(
            ("CONDITION", "MET", "REASON", "MESSAGE"),
            [(item.type, "yes" if item.status else "no", item.reason, item.message) for item in conditions],
        )
        print()
        print_table(
            ("HANDLER", "RECURSIVE READ-ONLY", "USER NAMESPACES"),
            [
                (
                    each["name"] or "(default)",
                    _yes(each["recursive_read_only_mounts"]),
                    _yes(each["user_namespaces"]),
                )
                for each in map(_handler, reply.runtime_handlers)
            ],
        )
    return 0 if all(item.status for item in conditions) else 1


async def _status(arguments: argparse.Namespace) -> tuple[cri.StatusResponse, dict[str, Any]]:
    async with Daemon(arguments.address) as daemon:
        reply = await daemon.runtime(
            "Status", cri.StatusRequest(), cri.StatusResponse, query_seconds(arguments.timeout)
        )
        if not arguments.json:
            return reply, {}
        info = await daemon.admin(
            "Info", admin.InfoRequest(), admin.InfoResponse, query_seconds(arguments.timeout)
        )
        return reply, json.loads(info.json)


def _handler(handler: cri.RuntimeHandler) -> HandlerFeatures:
    features = handler.features or cri.RuntimeHandlerFeatures()
    return {
        "name": handler.name,
        "recursive_read_only_mounts": features.recursive_read_only_mounts,
        "user_namespaces": features.user_namespaces,
    }


def _document(reply: cri.StatusResponse, info: dict[str, Any]) -> Status:
    conditions = reply.status.conditions if reply.status else []
    return {
        "conditions": [
            {"type": item.type, "status": item.status, "reason": item.reason, "message": item.message}
            for item in conditions
        ],
        "handlers": [_handler(handler) for handler in reply.runtime_handlers],
        "info": info,
    }


def _yes(value: bool) -> str:
    return "yes" if value else "no"
