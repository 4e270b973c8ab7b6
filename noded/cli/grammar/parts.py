"""What the declarations of commands are made of. Imports only argparse and the like."""

from __future__ import annotations

import argparse
import os
import textwrap
from collections.abc import Callable
from typing import TypeAlias

from noded.cli.grammar import DOCUMENT

DEFAULT_ADDRESS = "unix:///run/noded/noded.sock"
DEFAULT_CONFIG = "/etc/noded/noded.toml"
EXAMPLES = "examples:"  # what stands above the example of a command

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def group(commands: Commands, name: str, text: str) -> Commands:
    """Declare a command that only has commands below it, and return where to declare those."""
    added = commands.add_parser(name, help=text)
    return added.add_subparsers(title="actions", metavar="ACTION", required=True)


def command(
    commands: Commands, name: str, text: str, run: str, example: str, *, notes: str = ""
) -> argparse.ArgumentParser:
    """Declare one command.

    Args:
        text: what it does, in lower case and without a full stop: the line in the list of commands.
        run: "module:function" of what runs it; the function takes the parsed arguments and returns
            the exit status.
        example: whole command lines, one a line, shown by --help and in its manual page.
        notes: further sentences of the description.
    """
    added: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        description="\n".join([f"{text[0].upper()}{text[1:]}.", *textwrap.wrap(notes, 78)]),
        epilog=f"{EXAMPLES}\n{textwrap.indent(example.strip(), '  ')}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    added.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    added.set_defaults(run=run)
    return added


def config_option(command: argparse.ArgumentParser) -> None:
    """`--config`, of commands that read the configuration themselves."""
    command.add_argument(
        "--config",
        default=DEFAULT_CONFIG,
        metavar="FILE",
        help="configuration file, conf.d/*.toml beside it included (default: %(default)s)",
    )


def daemon_options(command: argparse.ArgumentParser, *, json: str = "") -> None:
    """`--address`, `--timeout` and, given the type of its document, `--json`: for what asks the daemon."""
    command.add_argument(
        "--address",
        default=os.environ.get("NODED_ADDRESS") or DEFAULT_ADDRESS,
        help=f"the daemon's socket (default: $NODED_ADDRESS or {DEFAULT_ADDRESS})",
    )
    command.add_argument(
        "--timeout",
        type=seconds,
        default=None,
        metavar="SECONDS",
        help="give up after so long (default: 10 for queries, none for transfers)",
    )
    if json:
        json_option(command, json)


def json_option(command: argparse.ArgumentParser, document: str, *, always: bool = False) -> None:
    """`--json`, of commands that print data.

    Args:
        document: the type of what is printed, "module:Name" of noded.cli.documents.
        always: it prints nothing else.
    """
    text = "print JSON; this command always does" if always else "print JSON"
    command.add_argument("--json", action="store_true", help=f"{text} (see noded-schema)")
    command.set_defaults(**{DOCUMENT: document})


def quiet_option(command: argparse.ArgumentParser) -> None:
    """`-q`, of lists."""
    command.add_argument("-q", "--quiet", action="store_true", help="print only ids")


def _positive(convert: Callable[[str], float], text: str, noun: str) -> float:
    try:
        value = convert(text)
    except ValueError:
        value = -1
    if not 0 <= value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is not {noun}")
    return value


def count(text: str) -> int:
    """A type for `add_argument`: a number of lines."""
    return int(_positive(int, text, "a number of lines"))


def seconds(text: str) -> float:
    """A type for `add_argument`: a number of seconds."""
    return _positive(float, text, "a number of seconds")
