"""`timeline`."""

from __future__ import annotations

from noded.cli.grammar.parts import Commands, command, count, daemon_options


def declare(commands: Commands) -> None:
    """Where the time goes."""
    timeline = command(
        commands,
        "timeline",
        "where the time of a pod's start went, step by step",
        "noded.cli.timeline:timeline",
        "noded timeline default/web\nnoded timeline web --html web.html\n"
        "noded timeline web --otlp http://127.0.0.1:4318\nnoded timeline",
        notes="Pods that failed or are removed are known, too, until newer ones need the room. Without POD "
        "the newest pods are listed.",
    )
    timeline.add_argument(
        "pod", metavar="POD", nargs="?", default="", help="name, NAMESPACE/NAME, or the start of an id"
    )
    timeline.add_argument(
        "-n",
        "--last",
        type=count,
        default=None,
        metavar="N",
        help="so many sandboxes, the newest (default: 1, in the list 20)",
    )
    timeline.add_argument(
        "-a", "--all", action="store_true", help="also what came after the start, up to the removal"
    )
    timeline.add_argument("--html", default="", metavar="FILE", help="write a page; - is standard output")
    timeline.add_argument("--svg", default="", metavar="FILE", help="write a picture; - is standard output")
    timeline.add_argument(
        "--otlp", default="", metavar="URL", help="send it to an OpenTelemetry collector, OTLP over HTTP"
    )
    daemon_options(timeline, json="timelines:Timelines")
