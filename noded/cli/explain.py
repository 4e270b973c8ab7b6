"""`noded explain`: where each field of a container's OCI spec comes from."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from noded.cli import find
from noded.cli.client import Daemon, wait_for
from noded.cli.table import print_json, print_table
from noded.errors import InvalidArgument
from noded.proto.noded.admin import v1 as admin

_SECONDS = 60.0  # the spec is built some hundred times
_WIDEST_VALUE = 56
_OBJECTS = re.compile(r"(mounts|linux\.(devices|namespaces|resources\.devices)|process\.rlimits)\[[^]]*\]")
_ENTRY = re.compile(r"\[[^]]*\]$")
_WHO = {
    "request": "kubelet",
    "profile": "seccomp profile",
    "cdi": "CDI device",
    "hooks": "OCI hook file",
    "nri": "NRI plugin",
    "host": "node",
}


def explain(arguments: argparse.Namespace) -> int:
    """Explain a container, or a request that nobody runs."""
    if bool(arguments.container) == bool(arguments.request):
        raise InvalidArgument("give either a container or --request FILE")
    if arguments.request:
        from noded.cli.explain_request import document

        found = document(arguments)
    else:
        found = wait_for(_ask(arguments))
    if arguments.field:
        found["fields"] = [one for one in found["fields"] if one["name"].startswith(arguments.field)]
    if arguments.json:
        print_json(found)
        return 0
    _print(found, every=arguments.all or bool(arguments.field), peers=arguments.peers)
    return 0


async def _ask(arguments: argparse.Namespace) -> dict[str, Any]:
    timeout = _SECONDS if arguments.timeout is None else arguments.timeout
    async with Daemon(arguments.address) as daemon:
        identifier = await find.container(daemon, arguments.container, timeout)
        request = admin.ExplainRequest(container_id=identifier)
        reply = await daemon.admin("Explain", request, admin.ExplainResponse, timeout)
    found: dict[str, Any] = json.loads(reply.json)
    return found


def _print(found: Mapping[str, Any], *, every: bool, peers: bool) -> None:
    if peers:
        _print_peers(found["peers"])
        return
    rows = list(_rows(found["fields"], every=every))
    print_table(("FIELD", "VALUE", "FROM", "SOURCE"), rows)
    for name in found["absent"]:
        print(f"today's configuration would add {name}")
    for note in found["notes"]:
        print(f"note: {note}")


def _rows(fields: Sequence[Mapping[str, Any]], *, every: bool) -> Iterator[tuple[str, str, str, str]]:
    """One row for each field, or for neighbours of one place and one source."""
    group: list[Mapping[str, Any]] = []
    for one in fields:
        if group and (every or _place(group[0]) != _place(one) or _whose(group[0]) != _whose(one)):
            yield _row(group)
            group = []
        group.append(one)
    if group:
        yield _row(group)


def _place(field: Mapping[str, Any]) -> str:
    name: str = field["name"]
    entry = _OBJECTS.match(name)
    return entry[0] if entry else name.partition("[")[0]


def _whose(field: Mapping[str, Any]) -> tuple[str, str, str]:
    """Who decides a field; entries of one list are one source."""
    origin = field["origin"]
    return origin["kind"], _ENTRY.sub("", origin["name"]), origin.get("note", "")


def _row(group: Sequence[Mapping[str, Any]]) -> tuple[str, str, str, str]:
    first = group[0]
    origin = first["origin"]
    values = dict.fromkeys(str(one["value"]) for one in group)
    text = ", ".join(values)
    if len(text) > _WIDEST_VALUE:
        text = f"{text[: _WIDEST_VALUE - 1]}\N{HORIZONTAL ELLIPSIS}"
    name = first["name"] if len(group) == 1 else f"{_place(first)} ({len(group)})"
    said = _said(first)
    if len(group) > 1 and len({one["origin"]["name"] for one in group}) > 1:
        said = said.replace(origin["name"], _ENTRY.sub("", origin["name"]), 1)
    return name, text, _WHO.get(origin["kind"], origin["kind"]), said


def _said(field: Mapping[str, Any]) -> str:
    origin = field["origin"]
    text = "; ".join(part for part in (origin["name"], origin.get("note", "")) if part)
    if origin["kind"] == "changed" and field["also"]:
        return f"{text}: {field['also'][0]['name']}"
    if origin["kind"] == "default" and field["unless"]:
        text += f" (unless {field['unless'][0]['name']})"
    return text


def _print_peers(peers: Mapping[str, Any]) -> None:
    rows = []
    for name, peer in peers.items():
        for one in peer["differences"]:
            why = one.get("reason") or one["why"]
            rows.append((name, one["name"], _shown(one["noded"]), _shown(one["peer"]), why))
    print_table(("PEER", "FIELD", "NODED", "PEER'S DEFAULT", "WHY"), rows)
    for name, peer in peers.items():
        print(f"{name} {peer['version']}, read on {peer['read_on']}: {peer['source']}")


def _shown(value: Any) -> str:
    return "-" if value is None else str(value)
