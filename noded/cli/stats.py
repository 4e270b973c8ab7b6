"""`noded stats`: what containers use now; with --watch again and again, in place."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from typing import TYPE_CHECKING

from noded.cli import find
from noded.cli.client import Daemon, query_seconds, wait_for
from noded.cli.documents.pods import Usage, Usages
from noded.cli.quantities import short_id, size
from noded.cli.table import print_json, print_table, printable
from noded.proto.runtime import v1 as cri

if TYPE_CHECKING:
    from rich.table import Table

_HEADERS = ("CONTAINER", "NAME", "POD", "CPU", "MEMORY", "WRITABLE")


def stats(arguments: argparse.Namespace) -> int:
    """Print the usage of all running containers, those that use most CPU first."""
    if not arguments.watch:
        found = wait_for(_once(arguments))
        if arguments.json:
            print_json(found)
        else:
            print_table(_HEADERS, [_row(each) for each in found])
        return 0
    wait_for(_watch(arguments))
    return 0


async def _once(arguments: argparse.Namespace) -> Usages:
    async with Daemon(arguments.address) as daemon:
        return await _look(daemon, arguments)


async def _watch(arguments: argparse.Namespace) -> None:
    async with Daemon(arguments.address) as daemon:
        if arguments.json or not sys.stdout.isatty():
            while True:
                print(json.dumps(await _look(daemon, arguments)), flush=True)
                await asyncio.sleep(arguments.interval)
        from rich.live import Live

        with Live(_table([]), auto_refresh=False, screen=True) as live:
            while True:
                live.update(_table(await _look(daemon, arguments)), refresh=True)
                await asyncio.sleep(arguments.interval)


async def _look(daemon: Daemon, arguments: argparse.Namespace) -> Usages:
    timeout = query_seconds(arguments.timeout)
    reply = await daemon.runtime(
        "ListContainerStats", cri.ListContainerStatsRequest(), cri.ListContainerStatsResponse, timeout
    )
    listed = {each.id: each for each in await find.containers(daemon, timeout)}
    pods = {each.id: each for each in await find.pods(daemon, timeout)}
    found = []
    for each in reply.stats:
        id_ = each.attributes.id if each.attributes else ""
        container = listed.get(id_)
        pod = pods.get(container.pod_sandbox_id) if container else None
        found.append(
            describe(each, f"{pod.metadata.namespace}/{pod.metadata.name}" if pod and pod.metadata else "")
        )
    found.sort(key=lambda each: (-(each["cpu_nanocores"] or 0), each["id"]))
    return found


def describe(each: cri.ContainerStats, pod: str) -> Usage:
    """The usage of one container; what is not known is None. Pure."""
    attributes = each.attributes or cri.ContainerAttributes()
    cpu, memory = each.cpu or cri.CpuUsage(), each.memory or cri.MemoryUsage()
    layer = each.writable_layer
    return {
        "id": attributes.id,
        "name": attributes.metadata.name if attributes.metadata else "",
        "pod": pod,
        "cpu_nanocores": _value(cpu.usage_nano_cores),
        "cpu_seconds": None
        if cpu.usage_core_nano_seconds is None
        else cpu.usage_core_nano_seconds.value / 1e9,
        "memory_working_set_bytes": _value(memory.working_set_bytes),
        "memory_available_bytes": _value(memory.available_bytes),
        "writable_bytes": _value(layer.used_bytes) if layer else None,
        "writable_inodes": _value(layer.inodes_used) if layer else None,
    }


def _value(number: cri.UInt64Value | None) -> int | None:
    return None if number is None else number.value


def _row(each: Usage) -> tuple[str, ...]:
    cores = each["cpu_nanocores"]
    memory, writable = each["memory_working_set_bytes"], each["writable_bytes"]
    limit = each["memory_available_bytes"]
    shown = "-" if memory is None else size(memory)
    if memory is not None and limit:
        shown += f" of {size(memory + limit)}"
    return (
        short_id(each["id"]),
        each["name"],
        each["pod"],
        "-" if cores is None else f"{cores / 1e9:.1%}",
        shown,
        "-" if writable is None else size(writable),
    )


def _table(found: Usages) -> Table:
    from rich.table import Table

    table = Table(
        box=None, pad_edge=False, padding=(0, 3, 0, 0), caption="Ctrl-C ends", caption_justify="left"
    )
    for header in _HEADERS:
        # On a narrow terminal names are cut, never numbers.
        if header in ("NAME", "POD"):
            table.add_column(header, overflow="ellipsis")
        else:
            table.add_column(header, justify="right" if header in _HEADERS[3:] else "left", no_wrap=True)
    for each in found:
        table.add_row(*map(printable, _row(each)))
    return table
