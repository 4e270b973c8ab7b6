"""`wipe`, `support-bundle`."""

from __future__ import annotations

from noded.cli.grammar.parts import Commands, command, config_option, daemon_options, json_option


def declare(commands: Commands) -> None:
    """What helps when nothing else does."""
    wipe = command(
        commands,
        "wipe",
        "stop and remove all pods, containers and images of noded (root)",
        "noded.cli.wipe:wipe",
        "noded wipe\nnoded wipe --force --keep-images",
        notes="Asks first. Works also while the daemon is down. The configuration stays.",
    )
    wipe.add_argument(
        "-f", "--force", action="store_true", help="do not ask, and do it although kubelet runs"
    )
    wipe.add_argument("--keep-images", action="store_true", help="remove only pods and containers")
    config_option(wipe)
    json_option(wipe, "node:Wiped")

    bundle = command(
        commands,
        "support-bundle",
        "one file with what helps others to help (root)",
        "noded.cli.support_bundle:support_bundle",
        "noded support-bundle\nnoded support-bundle -o /tmp/noded.tar.gz",
        notes="Configuration with secrets masked, status, lists, debts, `noded check`, journal, versions, "
        "mounts and cgroups. Never credentials of registries, nor environment, arguments, annotations of "
        "containers.",
    )
    bundle.add_argument("-o", "--output", default="", metavar="FILE", help="file to write (default: made up)")
    config_option(bundle)
    daemon_options(bundle, json="node:Bundle")

    schema = command(
        commands,
        "schema",
        "what the JSON of a command looks like, as JSON Schema",
        "noded.cli.schema:schema",
        "noded schema\nnoded schema images ls",
        notes="Without a command it lists those that print JSON. `events`, `logs` and `stats --watch` print "
        "one document a line. Keys may be added; none changes its meaning or goes away.",
    )
    schema.add_argument("words", metavar="COMMAND", nargs="*", help="words of a command, such as images ls")
    json_option(schema, "node:Schemas")
