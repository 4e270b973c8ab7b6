"""`serve`, `config`, `plugins`."""

from __future__ import annotations

from noded.cli.grammar.parts import Commands, command, config_option, group, json_option


def declare(commands: Commands) -> None:
    """The daemon, its configuration and plugins."""
    serve = command(
        commands,
        "serve",
        "run the daemon",
        "noded.cli.serve:serve",
        "noded serve --config /etc/noded/noded.toml",
    )
    config_option(serve)

    actions = group(commands, "config", "show or check the configuration")
    show = command(
        actions,
        "show",
        "the configuration in effect, files merged",
        "noded.cli.config:show",
        "noded config show",
    )
    config_option(show)
    json_option(show, "node:Configuration")
    default = command(
        actions,
        "default",
        "every key with its default and meaning",
        "noded.cli.config:default",
        "noded config default",
    )
    json_option(default, "node:ConfigDefaults")
    check = command(
        actions,
        "check",
        "exit 0 if the files are right, else say what is wrong where",
        "noded.cli.config:check",
        "noded config check --config ./noded.toml",
    )
    config_option(check)
    json_option(check, "node:ConfigChecked")

    imported = command(
        actions,
        "import",
        "translate the configuration of CRI-O or containerd",
        "noded.cli.config_import:import_",
        "noded config import /etc/containerd/config.toml >noded.toml\n"
        "noded config import /etc/crio/crio.conf /etc/crio/crio.conf.d/10-crio.conf --json",
        notes="Prints a noded.toml on standard output, and on standard error every key that was set: whether "
        "it maps, differs, or has no equivalent.",
    )
    imported.add_argument("files", metavar="FILE", nargs="+", help="in the order in which they are read")
    json_option(imported, "node:ConfigImported")

    actions = group(commands, "plugins", "runtime plugins and their handlers")
    listing = command(
        actions,
        "list",
        "plugins, their handlers, and why one is unavailable",
        "noded.cli.plugins:list_plugins",
        "noded plugins list",
    )
    config_option(listing)
    json_option(listing, "plugins:PluginsListed")
    describe = command(
        actions,
        "describe",
        "hooks, options, features and findings of one plugin",
        "noded.cli.plugins_describe:describe",
        "noded plugins describe crun",
    )
    describe.add_argument("name", metavar="NAME", help="plugin, distribution, runtime type or handler")
    config_option(describe)
    json_option(describe, "plugins:PluginDescribed")
    check = command(
        actions,
        "check",
        "run the acceptance suite over one handler, in a noded of its own (root)",
        "noded.cli.plugins_check:check",
        "noded plugins check crun",
    )
    check.add_argument("name", metavar="HANDLER", help="handler of the configuration")
    check.add_argument("-k", dest="tests", default="", metavar="EXPRESSION", help="only tests that match")
    config_option(check)
    new = command(
        actions,
        "new",
        "write a distribution with a runtime plugin",
        "noded.cli.plugins_new:new",
        "noded plugins new youki -C ./noded-youki",
    )
    new.add_argument("name", metavar="NAME", help="name of the runtime type, e.g. youki")
    new.add_argument("-C", "--directory", default="", metavar="DIR", help="where to (default: NAME)")
    json_option(new, "plugins:PluginWritten")
