"""The whole command line as one grammar. Imports only argparse, so that `noded --version` is instant.

Each command names its function as "module:function"; `noded.cli.main` imports it when it is chosen.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

DEFAULT_ADDRESS = "unix:///run/noded/noded.sock"
DEFAULT_CONFIG = "/etc/noded/noded.toml"


def parser() -> argparse.ArgumentParser:
    """The parser of the `noded` program; a parsed command has `run`, "module:function"."""
    top = argparse.ArgumentParser(
        prog="noded",
        description="Kubernetes container runtime daemon: CRI v1 with runtime handlers as plugins.",
        epilog="Environment: NODED_ADDRESS, the daemon's socket.",
    )
    top.add_argument("--version", action="store_true", help="print the version of this program and exit")
    top.add_argument(
        "--debug", action="store_true", default=False, help="show a traceback when a command fails"
    )
    commands = top.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for declare in (_daemon, _node, _pods, _images, _demo):
        declare(commands)
    return top


def _daemon(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    serve = _command(commands, "serve", "run the daemon", "noded.cli.serve:serve")
    _config_option(serve)

    config = commands.add_parser("config", help="show or check the configuration")
    actions = config.add_subparsers(title="actions", metavar="ACTION", required=True)
    show = _command(actions, "show", "the configuration in effect, files merged", "noded.cli.config:show")
    _config_option(show)
    _command(actions, "default", "every key with its default and meaning", "noded.cli.config:default")
    check = _command(
        actions,
        "check",
        "exit 0 if the files are right, else say what is wrong where",
        "noded.cli.config:check",
    )
    _config_option(check)

    plugins = commands.add_parser("plugins", help="runtime plugins and their handlers")
    actions = plugins.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = _command(
        actions,
        "list",
        "plugins, their handlers, and why one is unavailable",
        "noded.cli.plugins:list_plugins",
    )
    _config_option(listing)
    _json_option(listing)
    describe = _command(
        actions,
        "describe",
        "hooks, options, features and findings of one plugin",
        "noded.cli.plugins_describe:describe",
    )
    describe.add_argument("name", metavar="NAME", help="plugin, distribution, runtime type or handler")
    _config_option(describe)
    _json_option(describe)
    check = _command(
        actions,
        "check",
        "run the acceptance suite over one handler, in a noded of its own (root)",
        "noded.cli.plugins_check:check",
    )
    check.add_argument("name", metavar="HANDLER", help="handler of the configuration")
    check.add_argument("-k", dest="tests", default="", metavar="EXPRESSION", help="only tests that match")
    _config_option(check)
    new = _command(actions, "new", "write a distribution with a runtime plugin", "noded.cli.plugins_new:new")
    new.add_argument("name", metavar="NAME", help="name of the runtime type, e.g. youki")
    new.add_argument("-C", "--directory", default="", metavar="DIR", help="where to (default: NAME)")


def _node(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    version = _command(
        commands, "version", "versions of this program and of the daemon", "noded.cli.status:version"
    )
    _daemon_options(version)
    status = _command(commands, "status", "conditions and handlers of the daemon", "noded.cli.status:status")
    _daemon_options(status)

    debts = commands.add_parser("debts", help="teardowns that failed and are retried")
    actions = debts.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = _command(actions, "list", "what is owed, since when, and why", "noded.cli.debts:list_debts")
    _daemon_options(listing)
    forgive = _command(
        actions,
        "forgive",
        "stop retrying one teardown; its leftovers stay on the node",
        "noded.cli.debts:forgive",
    )
    forgive.add_argument("id", metavar="ID", help="id shown by `noded debts list`")
    _daemon_options(forgive, json=False)


def _pods(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    pods = _command(commands, "pods", "pod sandboxes", "noded.cli.pods:pods")
    pods.add_argument("-n", "--namespace", default="", help="only pods of this Kubernetes namespace")
    _quiet_option(pods)
    _daemon_options(pods)
    containers = _command(commands, "ps", "containers", "noded.cli.pods:containers")
    containers.add_argument("-a", "--all", action="store_true", help="also those that do not run")
    containers.add_argument("-p", "--pod", default="", metavar="ID", help="only containers of this pod")
    _quiet_option(containers)
    _daemon_options(containers)
    logs = _command(commands, "logs", "the log of a container", "noded.cli.logs:logs")
    logs.add_argument("id", metavar="CONTAINER", help="container id, or an unambiguous start of one")
    logs.add_argument("-f", "--follow", action="store_true", help="go on until the container exits")
    logs.add_argument("-n", "--tail", type=_count, metavar="LINES", help="begin with the last LINES lines")
    logs.add_argument("-t", "--timestamps", action="store_true", help="put its time before each line")
    _daemon_options(logs, json=False)


def _images(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    images = commands.add_parser("images", help="list, pull, inspect, verify, remove, load and save images")
    actions = images.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = _command(actions, "ls", "images of this node", "noded.cli.images:list_images")
    _quiet_option(listing)
    _daemon_options(listing)
    pull = _command(actions, "pull", "pull an image from its registry", "noded.cli.images:pull")
    pull.add_argument("reference", metavar="REFERENCE", help="for example registry.example/app:1.2")
    pull.add_argument(
        "--creds",
        default="",
        metavar="USER[:PASSWORD]",
        help="credentials; a missing password is read from standard input",
    )
    _daemon_options(pull)
    remove = _command(actions, "rm", "remove images", "noded.cli.images:remove")
    remove.add_argument("images", metavar="IMAGE", nargs="+", help="reference or id")
    _daemon_options(remove)
    inspect = _command(
        actions, "inspect", "all details of an image, as JSON", "noded.cli.image_store:inspect"
    )
    inspect.add_argument("image", metavar="IMAGE", help="reference or id")
    _daemon_options(inspect, json=False)
    verify = _command(
        actions,
        "verify",
        "look for damage in the local store and repair it (status 1: some image stays damaged)",
        "noded.cli.image_store:verify",
    )
    verify.add_argument("images", metavar="IMAGE", nargs="*", help="reference or id (default: all images)")
    verify.add_argument(
        "--deep", action="store_true", help="read every blob and extract every layer anew, to compare"
    )
    _daemon_options(verify)
    usage = _command(actions, "df", "what images take on disk", "noded.cli.image_store:usage")
    _daemon_options(usage)
    load = _command(
        actions, "load", "load an OCI layout (directory or tar) or a docker archive", "noded.cli.images:load"
    )
    load.add_argument("path", metavar="PATH", help="file or directory, as the daemon sees it")
    _daemon_options(load)
    save = _command(actions, "save", "save images into a tar file", "noded.cli.images:save")
    save.add_argument("references", metavar="REFERENCE", nargs="+")
    save.add_argument("-o", "--output", metavar="PATH", required=True, help="file to write")
    save.add_argument(
        "--format",
        choices=("oci", "docker"),
        default="oci",
        help="oci: OCI layout, docker: docker archive (default: oci)",
    )
    _daemon_options(save)


def _demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    demo = _command(
        commands, "demo", "run one pod in a noded of its own and clean up (root)", "noded.cli.demo:demo"
    )
    demo.add_argument("--runtime", default="runc", metavar="HANDLER", help="runtime handler (default: runc)")
    demo.add_argument(
        "--hold", action="store_true", help="keep the pod until Enter or Ctrl-C, to look around"
    )


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str, run: str
) -> argparse.ArgumentParser:
    added: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}."
    )
    added.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    added.set_defaults(run=run)
    return added


def _config_option(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--config",
        default=DEFAULT_CONFIG,
        metavar="FILE",
        help="configuration file, conf.d/*.toml beside it included (default: %(default)s)",
    )


def _daemon_options(command: argparse.ArgumentParser, *, json: bool = True) -> None:
    command.add_argument(
        "--address",
        default=os.environ.get("NODED_ADDRESS") or DEFAULT_ADDRESS,
        help=f"the daemon's socket (default: $NODED_ADDRESS or {DEFAULT_ADDRESS})",
    )
    command.add_argument(
        "--timeout",
        type=_seconds,
        default=None,
        metavar="SECONDS",
        help="give up after so long (default: 10 for queries, none for transfers)",
    )
    if json:
        _json_option(command)


def _json_option(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON")


def _quiet_option(command: argparse.ArgumentParser) -> None:
    command.add_argument("-q", "--quiet", action="store_true", help="print only ids")


def _positive(convert: Callable[[str], float], text: str, noun: str) -> float:
    try:
        value = convert(text)
    except ValueError:
        value = -1
    if not 0 <= value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is not {noun}")
    return value


def _count(text: str) -> int:
    return int(_positive(int, text, "a number of lines"))


def _seconds(text: str) -> float:
    return _positive(float, text, "a number of seconds")
