"""`version`, `status`, `debts`."""

from __future__ import annotations

from noded.cli.grammar.parts import Commands, command, daemon_options, group


def declare(commands: Commands) -> None:
    """The state of the node."""
    version = command(
        commands,
        "version",
        "versions of this program and of the daemon",
        "noded.cli.status:version",
        "noded version --json",
    )
    daemon_options(version)
    status = command(
        commands, "status", "conditions and handlers of the daemon", "noded.cli.status:status", "noded status"
    )
    daemon_options(status)

    actions = group(commands, "debts", "teardowns that failed and are retried")
    listing = command(
        actions, "list", "what is owed, since when, and why", "noded.cli.debts:list_debts", "noded debts list"
    )
    daemon_options(listing)
    forgive = command(
        actions,
        "forgive",
        "stop retrying one teardown; its leftovers stay on the node",
        "noded.cli.debts:forgive",
        "noded debts forgive 4f1a0c22d9",
    )
    forgive.add_argument("id", metavar="ID", help="id shown by `noded debts list`")
    daemon_options(forgive, json=False)
