"""`exec`, `run`, `stats`, `events`, `inspect`."""

from __future__ import annotations

import argparse

from noded.cli.grammar.parts import Commands, command, daemon_options, json_option, seconds


def declare(commands: Commands) -> None:
    """Looking into pods, and trying one."""
    execute = command(
        commands,
        "exec",
        "run a command in a container",
        "noded.cli.exec:execute",
        "noded exec 4f1a0c22d9 cat /etc/hosts\nnoded exec -it web sh",
        notes="The exit status is that of the command.",
    )
    _session_options(execute)
    daemon_options(execute)
    execute.add_argument("container", metavar="CONTAINER", help="container id, its start, or a name")
    execute.add_argument("command_name", metavar="COMMAND", help="program in the container")
    _rest(execute)

    run = command(
        commands,
        "run",
        "run one container in a pod of its own, to try an image on a handler",
        "noded.cli.run:run",
        "noded run registry.example/app:1.2\nnoded run --runtime crun -it registry.example/busybox:1 sh",
        notes="The image is pulled if it is not here; the exit status is that of the container. Options "
        "stand before IMAGE.",
    )
    run.add_argument("--runtime", default="", metavar="HANDLER", help="runtime handler (default: the node's)")
    run.add_argument(
        "--rm",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="remove the pod at the end (default)",
    )
    run.add_argument("--name", default="", help="name of the pod (default: made up)")
    run.add_argument(
        "-e",
        "--env",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="set a variable; can be repeated",
    )
    run.add_argument("--host-network", action="store_true", help="use the node's network, not the pods'")
    _session_options(run)
    daemon_options(run)
    run.add_argument("image", metavar="IMAGE", help="reference or id")
    run.add_argument(
        "command_name", metavar="COMMAND", nargs="?", default="", help="instead of the image's own"
    )
    _rest(run)

    stats = command(
        commands,
        "stats",
        "what running containers use",
        "noded.cli.stats:stats",
        "noded stats\nnoded stats --watch",
    )
    stats.add_argument("-w", "--watch", action="store_true", help="show it again and again until Ctrl-C")
    stats.add_argument(
        "--interval", type=seconds, default=2.0, metavar="SECONDS", help="between two looks (default: 2)"
    )
    daemon_options(stats, json="pods:Usages")

    events = command(
        commands,
        "events",
        "what happens to containers and pods, as it happens",
        "noded.cli.events:events",
        "noded events\nnoded events --pod default/web --json",
    )
    events.add_argument("-p", "--pod", default="", metavar="POD", help="only of this pod: id or name")
    daemon_options(events, json="pods:Event")

    inspect = command(
        commands,
        "inspect",
        "everything about one pod, container or image, as JSON",
        "noded.cli.inspect:inspect",
        "noded inspect 4f1a0c22d9\nnoded inspect --type image registry.example/app:1.2",
    )
    inspect.add_argument("object", metavar="OBJECT", help="id, its start, name or reference")
    inspect.add_argument(
        "--type",
        choices=("container", "pod", "image"),
        default="",
        help="what it is (default: the first found)",
    )
    daemon_options(inspect)
    json_option(inspect, "pods:Inspected", always=True)


def _session_options(to: argparse.ArgumentParser) -> None:
    to.add_argument("-i", "--stdin", action="store_true", help="pass standard input on")
    to.add_argument("-t", "--tty", action="store_true", help="give it a terminal")


def _rest(to: argparse.ArgumentParser) -> None:
    """Everything behind the command is the command's, options too."""
    to.add_argument(
        "arguments", metavar="ARGUMENT", nargs=argparse.REMAINDER, help="arguments of the command"
    )
