"""`noded timeline`: where the time of a pod's start went."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from noded.cli.client import Daemon, query_seconds, wait_for
from noded.cli.documents.timelines import Step, TimelinePhase, Timelines
from noded.cli.quantities import age, short_id
from noded.cli.table import print_json, print_table, printable
from noded.cli.timeline_rows import category, duration
from noded.errors import FailedPrecondition, NotFound
from noded.model.timeline import Call, Kind, Phase, Row, Span, Timeline, from_json, group, rows, slowest
from noded.proto.noded.admin import v1 as admin

SCHEMA: Final = "noded.timeline/1"

_LISTED = 20
_PIPE_COLUMNS = 110
_LEAST_BAR = 12
_NUMBER = 11  # columns of a duration and what separates it
_BLOCKS = " ▏▎▍▌▋▊▉█"
_TITLES = {Kind.START: "start", Kind.LATER: "later", Kind.END: "end"}


def timeline(arguments: argparse.Namespace) -> int:
    """Show the timelines of a pod, or list those there are."""
    last = arguments.last or (1 if arguments.pod else _LISTED)
    timelines = wait_for(_ask(arguments, last))
    if arguments.otlp:
        _send(arguments.otlp, timelines)
    written = _write(arguments, timelines)
    if arguments.json:
        print_json(document(timelines))
    elif not arguments.pod:
        _list(timelines)
    elif not (written or arguments.otlp):
        for one in timelines:
            _show(one, everything=arguments.all)
    return 0


async def _ask(arguments: argparse.Namespace, last: int) -> list[Timeline]:
    timeout = query_seconds(arguments.timeout)
    async with Daemon(arguments.address) as daemon:
        request = admin.TimelineRequest(pod=arguments.pod, last=last)
        reply = await daemon.admin("Timeline", request, admin.TimelineResponse, timeout)
    return [one for pod in reply.pods for one in group(from_json(json.loads(call)) for call in pod.calls)]


def _write(arguments: argparse.Namespace, timelines: Sequence[Timeline]) -> bool:
    """Write the files that were asked for; whether there were any."""
    if not (arguments.html or arguments.svg):
        return False
    from noded.cli import timeline_page, timeline_picture

    parts = [(one, shown(one, everything=arguments.all)) for one in timelines]
    if not parts:
        raise NotFound("no pod has been started yet: there is nothing to show")
    if arguments.html:
        _put(arguments.html, timeline_page.page(parts))
    if arguments.svg:
        _put(arguments.svg, timeline_picture.picture([phase for _, phases in parts for phase in phases]))
    return True


def _put(path: str, text: str) -> None:
    if path == "-":
        sys.stdout.write(text)
        return
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise FailedPrecondition(f"cannot write {path}: {error.strerror}") from error


def _send(url: str, timelines: Iterable[Timeline]) -> None:
    import urllib3

    from noded.tracing.export import post, traces_url

    target = traces_url(url, "--otlp")
    calls = [call for one in timelines for call in one.calls]
    with urllib3.PoolManager(retries=False) as pool:
        if post(pool, target, calls):
            raise FailedPrecondition(f"{target} does not take traces: is the collector there?")
    print(f"{len(calls)} calls sent to {target}", file=sys.stderr)


def shown(one: Timeline, *, everything: bool) -> list[Phase]:
    """The start, and what failed last; or all phases."""
    phases = list(one.phases)
    if everything:
        return phases
    return [phases[0], *(phases[-1:] if len(phases) > 1 and phases[-1].failed else [])]


def document(timelines: Sequence[Timeline]) -> Timelines:
    """What --json prints."""
    return {
        "schema": SCHEMA,
        "pods": [
            {
                "namespace": one.subject.namespace,
                "name": one.subject.name,
                "uid": one.subject.uid,
                "id": one.subject.sandbox_id,
                "phases": [_phase(phase) for phase in one.phases],
            }
            for one in timelines
        ],
    }


def _phase(phase: Phase) -> TimelinePhase:
    return {
        "kind": phase.kind.value,
        "start_ns": phase.start_ns,
        "end_ns": phase.end_ns,
        "failed": phase.failed,
        "calls": [
            {
                "method": call.method,
                "container": call.container,
                "start_ns": call.start_ns,
                "end_ns": call.last_ns,
                "finished": bool(call.end_ns),
                "error": call.error,
                "trace_id": call.trace_id,
                "span_id": call.id,
                "parent_span_id": call.parent_id,
                "steps": _steps(call, 0),
            }
            for call in phase.calls
        ],
    }


def _steps(call: Call, parent: int) -> list[Step]:
    def start(span: Span) -> tuple[int, int]:
        return span.start_ns, span.id

    return [
        {
            "name": span.name,
            "start_ns": span.start_ns,
            "end_ns": span.end_ns or call.last_ns,
            "finished": bool(span.end_ns),
            "error": span.error,
            "attributes": dict(span.attributes),
            "steps": _steps(call, span.id),
        }
        for span in sorted((one for one in call.spans if one.parent == parent), key=start)
    ]


def title(one: Timeline, phase: Phase) -> str:
    """Such as `default/web 4f1a0c22d9: start in 312 ms`."""
    outcome = "failed after" if phase.failed else "in"
    return (
        f"{one.subject.pod} {short_id(one.subject.sandbox_id)}: {_TITLES[phase.kind]} {outcome} "
        f"{duration(phase.end_ns - phase.start_ns)}"
    )


def _list(timelines: Sequence[Timeline]) -> None:
    now_ns = time.time_ns()
    print_table(
        ("POD", "ID", "BEGUN", "START", "SLOWEST STEP", "ERROR"),
        [
            (
                one.subject.pod,
                short_id(one.subject.sandbox_id),
                age(one.calls[0].start_ns, now_ns),
                duration(one.phases[0].end_ns - one.phases[0].start_ns),
                ", ".join(f"{name} {duration(ns)}" for name, ns in slowest(one.phases[0], 1)),
                next((call.error for call in reversed(one.calls) if call.error), ""),
            )
            for one in reversed(timelines)
        ],
    )


def _show(one: Timeline, *, everything: bool) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_COLUMNS)
    phases = shown(one, everything=everything)
    for phase in phases:
        console.print(Text(printable(title(one, phase)), style="bold red" if phase.failed else "bold"))
        for line in waterfall(phase, console.width):
            console.print(Text.assemble(*line), no_wrap=True, overflow="crop")
        top = ", ".join(f"{name} {duration(ns)}" for name, ns in slowest(phase, 3))
        console.print(Text(printable(f"slowest: {top}"), style="dim"))
        console.print()
    hidden = sum(len(phase.calls) for phase in one.phases) - sum(len(phase.calls) for phase in phases)
    if hidden:
        console.print(Text(f"{hidden} more calls: --all", style="dim"))


def waterfall(phase: Phase, columns: int) -> Iterator[list[tuple[str, str]]]:
    """Lines of (text, style): name, duration, bar; below a row what went wrong in it."""
    listed = list(rows(phase))
    names = [printable("  " * row.depth + row.name) for row in listed]
    width = min(max(len(name) for name in names), max(1, columns - _LEAST_BAR - _NUMBER))
    room = max(1, columns - width - _NUMBER)
    total_ns = max(1, phase.end_ns - phase.start_ns)
    for row, name in zip(listed, names, strict=True):
        begun, ended = ((at - phase.start_ns) / total_ns for at in (row.start_ns, row.end_ns))
        cut = name if len(name) <= width else name[: width - 1] + "…"
        style = style_of(row)
        yield [
            (f"{cut:<{width}} ", style if row.depth == 0 or row.error else ""),
            (f"{duration(row.end_ns - row.start_ns):>8}  ", "dim" if row.gap else ""),
            (bar(begun, ended, room), style),
        ]
        if row.error and row.error != "cancelled":
            yield [(f"{'  ' * (row.depth + 1)}✗ {printable(row.error)}", "red")]


_STYLES: Mapping[str, str] = {
    "call": "cyan",
    "gap": "bright_black",
    "network": "magenta",
    "image": "blue",
    "runtime": "green",
    "wait": "bright_black",
    "other": "yellow",
}


def style_of(row: Row) -> str:
    """A colour for a row."""
    return "red" if row.error else _STYLES[category(row)]


def bar(start: float, end: float, room: int) -> str:
    """A bar from `start` to `end`, parts of the whole, in so many columns; at least a thin line."""
    first = min(int(start * room), room - 1)
    eighths = max(1, round((min(end, 1.0) * room - first) * 8))
    full, rest = divmod(eighths, 8)
    return (" " * first + _BLOCKS[8] * full + (_BLOCKS[rest] if rest else ""))[:room]
