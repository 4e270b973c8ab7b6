"""`pods`, `ps`, `logs`."""

from __future__ import annotations

from noded.cli.grammar.parts import Commands, command, count, daemon_options, quiet_option


def declare(commands: Commands) -> None:
    """Pods and containers."""
    pods = command(commands, "pods", "pod sandboxes", "noded.cli.pods:pods", "noded pods -n kube-system")
    pods.add_argument("-n", "--namespace", default="", help="only pods of this Kubernetes namespace")
    quiet_option(pods)
    daemon_options(pods)
    containers = command(commands, "ps", "containers", "noded.cli.pods:containers", "noded ps -a")
    containers.add_argument("-a", "--all", action="store_true", help="also those that do not run")
    containers.add_argument("-p", "--pod", default="", metavar="ID", help="only containers of this pod")
    quiet_option(containers)
    daemon_options(containers)
    logs = command(
        commands,
        "logs",
        "the log of a container",
        "noded.cli.logs:logs",
        "noded logs -f --tail 20 4f1a0c22d9",
    )
    logs.add_argument("id", metavar="CONTAINER", help="container id, or an unambiguous start of one")
    logs.add_argument("-f", "--follow", action="store_true", help="go on until the container exits")
    logs.add_argument("-n", "--tail", type=count, metavar="LINES", help="begin with the last LINES lines")
    logs.add_argument("-t", "--timestamps", action="store_true", help="put its time before each line")
    daemon_options(logs, json=False)
