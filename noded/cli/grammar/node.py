"""`version`, `status`, `check`, `debts`."""

from __future__ import annotations

from noded.cli.grammar.parts import Commands, command, config_option, daemon_options, group, json_option


def declare(commands: Commands) -> None:
    """The state of the node."""
    version = command(
        commands,
        "version",
        "versions of this program and of the daemon",
        "noded.cli.status:version",
        "noded version --json",
    )
    daemon_options(version, json="node:Versions")
    status = command(
        commands, "status", "conditions and handlers of the daemon", "noded.cli.status:status", "noded status"
    )
    daemon_options(status, json="node:Status")

    check = command(
        commands,
        "check",
        "what is wrong on this node, why it matters, and what fixes it",
        "noded.cli.check:check",
        "noded check\nnoded check --json\nnoded check --kubelet-config /etc/kubernetes/kubelet.yaml",
        notes="Exit status: 0 when all is well, 1 with warnings, 2 with failures.",
    )
    check.add_argument("-a", "--all", action="store_true", help="show also what is well")
    check.add_argument(
        "--kubelet-config",
        default="",
        metavar="FILE",
        help="kubelet's configuration (default: what kubelet is told, or /var/lib/kubelet/config.yaml)",
    )
    config_option(check)
    json_option(check, "node:Check")

    actions = group(commands, "debts", "teardowns that failed and are retried")
    listing = command(
        actions, "list", "what is owed, since when, and why", "noded.cli.debts:list_debts", "noded debts list"
    )
    daemon_options(listing, json="node:Debts")
    forgive = command(
        actions,
        "forgive",
        "stop retrying the CNI DEL of one pod; its leftovers stay on the node",
        "noded.cli.debts:forgive",
        "noded debts forgive 4f1a0c22d9",
    )
    forgive.add_argument("id", metavar="ID", help="id shown by `noded debts list`")
    daemon_options(forgive, json="node:Forgiven")
