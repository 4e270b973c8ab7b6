"""Parse, import the one command, run it, and turn failures into one clear line."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from noded.errors import NodedError

if TYPE_CHECKING:
    import argparse

FAILED = 1  # the command could not do it
INTERRUPTED = 130  # Ctrl-C, as shells report it


def run(arguments: Sequence[str]) -> int:
    """Run one command line (without the program name) and return its exit status.

    0 = done, 1 = failed with one line on stderr, 2 = wrong usage (raised by argparse as
    SystemExit), 130 = interrupted.
    """
    if len(arguments) == 3 and list(arguments[:2]) == ["serve", "--config"]:
        # As the service runs it: argparse and the grammar take 40 ms, for which pods would wait.
        from noded.daemon import start

        return _done(lambda: start.main(Path(arguments[2])), debug=False)
    from noded.cli import grammar

    parser = grammar.parser()
    parsed = parser.parse_args(arguments)
    if parsed.version:
        from importlib.metadata import version  # here: half of what a help text would cost

        print(f"noded {version('noded')}")
        return 0
    if parsed.command is None:
        parser.print_help()
        return 0
    return _done(lambda: _command(parsed.run)(parsed), debug=parsed.debug)


def _done(command: Callable[[], int], *, debug: bool) -> int:
    try:
        status = command()
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has seen enough. Python flushes stdout once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (NodedError, OSError) as error:
        if debug:
            raise
        print(f"noded: {_one_line(error)}", file=sys.stderr)
        return FAILED
    return status


def _command(name: str) -> Callable[[argparse.Namespace], int]:
    module, function = name.split(":")
    command: Callable[[argparse.Namespace], int] = getattr(import_module(module), function)
    return command


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return next(iter(str(error).splitlines()), "") or type(error).__name__
