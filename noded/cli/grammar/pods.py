"""`pods`, `ps`, `logs`."""

from __future__ import annotations

from noded.cli.grammar.parts import Commands, command, config_option, count, daemon_options, quiet_option


def declare(commands: Commands) -> None:
    """Pods and containers."""
    pods = command(commands, "pods", "pod sandboxes", "noded.cli.pods:pods", "noded pods -n kube-system")
    pods.add_argument("-n", "--namespace", default="", help="only pods of this Kubernetes namespace")
    quiet_option(pods)
    daemon_options(pods, json="pods:Pods")
    containers = command(commands, "ps", "containers", "noded.cli.pods:containers", "noded ps -a")
    containers.add_argument("-a", "--all", action="store_true", help="also those that do not run")
    containers.add_argument("-p", "--pod", default="", metavar="ID", help="only containers of this pod")
    quiet_option(containers)
    daemon_options(containers, json="pods:Containers")
    explain = command(
        commands,
        "explain",
        "where each field of a container's OCI spec comes from",
        "noded.cli.explain:explain",
        "noded explain 4f1a0c22d9\n"
        "noded explain 4f1a0c22d9 --field process.capabilities\n"
        "noded explain 4f1a0c22d9 --peers\n"
        "noded explain --request container.json --pod pod.json --image config.json",
        notes="Neighbouring fields with one source share a line; --json has each by itself. With --request "
        "nothing runs: FILE is a CreateContainerRequest in JSON, or a ContainerConfig as crictl takes it.",
    )
    explain.add_argument(
        "container", metavar="CONTAINER", nargs="?", default="", help="container id, or a start of one"
    )
    explain.add_argument("--field", default="", metavar="NAME", help="only fields whose name starts so")
    explain.add_argument("-a", "--all", action="store_true", help="a line for each field")
    explain.add_argument(
        "--peers", action="store_true", help="only what differs from containerd's and CRI-O's defaults"
    )
    explain.add_argument("--request", default="", metavar="FILE", help="explain this request instead")
    explain.add_argument("--pod", default="", metavar="FILE", help="the request's PodSandboxConfig")
    explain.add_argument(
        "--image", default="", metavar="IMAGE", help="its image: a file with its configuration, or a name"
    )
    explain.add_argument("--handler", default="", metavar="NAME", help="its runtime handler")
    config_option(explain)
    daemon_options(explain, json="pods:Explained")
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
    daemon_options(logs, json="pods:LogLine")
