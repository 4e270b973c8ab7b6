"""The command line as values, read from its argparse grammar: what manual pages and completions show."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from dataclasses import dataclass

_FILES = {"FILE", "PATH", "DIR", "DIRECTORY"}


@dataclass(frozen=True, slots=True)
class Argument:
    """An option or an operand.

    Args:
        flags: of an option, e.g. ("-q", "--quiet"); empty for an operand.
        value: name of its value, "" for an option that takes none.
        nargs: of an operand, as argparse has it: None for exactly one, "?", "*", "+" or a number.
    """

    flags: tuple[str, ...]
    value: str
    help: str
    choices: tuple[str, ...] = ()
    nargs: str | int | None = None
    required: bool = False

    @property
    def completes(self) -> str:
        """What completes its value: "files", a name of an object in lower case, or "" for nothing."""
        name = re.sub(r"\W.*", "", self.value).upper()
        return "files" if name in _FILES else name.lower()


@dataclass(frozen=True, slots=True)
class Command:
    """One command with its path, e.g. ("noded", "images", "pull")."""

    path: tuple[str, ...]
    help: str
    description: str
    epilog: str
    arguments: tuple[Argument, ...]
    commands: tuple[Command, ...]

    @property
    def options(self) -> tuple[Argument, ...]:
        return tuple(each for each in self.arguments if each.flags)

    @property
    def operands(self) -> tuple[Argument, ...]:
        return tuple(each for each in self.arguments if not each.flags)

    def all(self) -> Iterator[Command]:
        """This command and every one below it."""
        yield self
        for command in self.commands:
            yield from command.all()


def read(parser: argparse.ArgumentParser) -> Command:
    """Read a whole grammar."""
    return _command(parser, (parser.prog,), "")


def _command(parser: argparse.ArgumentParser, path: tuple[str, ...], help_text: str) -> Command:
    arguments: list[Argument] = []
    commands: list[Command] = []
    # argparse has no public way to ask a parser what it accepts.
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            texts = {each.dest: each.help or "" for each in action._choices_actions}
            commands += [
                _command(inner, (*path, name), texts[name])
                for name, inner in action.choices.items()
                if name in texts and texts[name] != argparse.SUPPRESS
            ]
        elif action.help != argparse.SUPPRESS:
            arguments.append(_argument(parser, action))
    description = parser.description or (f"{help_text[:1].upper()}{help_text[1:]}." if help_text else "")
    return Command(
        path, help_text, description, (parser.epilog or "").strip(), tuple(arguments), tuple(commands)
    )


def _argument(parser: argparse.ArgumentParser, action: argparse.Action) -> Argument:
    choices = tuple(map(str, action.choices or ()))
    value = ""
    if action.nargs != 0:
        metavar = action.metavar[0] if isinstance(action.metavar, tuple) else action.metavar
        value = metavar or (action.dest.upper() if not choices else "|".join(choices))
    return Argument(
        flags=tuple(action.option_strings),
        value=value,
        help=parser._get_formatter()._expand_help(action) if action.help else "",
        choices=choices,
        nargs=action.nargs,
        required=action.required,
    )
