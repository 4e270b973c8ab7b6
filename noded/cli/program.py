"""Running modules of this very noded in a process of their own.

`python -m noded` would find another noded, or none: an installed noded changes its module path itself
and is run without the system's packages.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

_RUN = (
    "import runpy, sys; sys.path[:] = sys.argv.pop(1).split(':'); "
    "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)


def command(module: str, *, further_paths: Sequence[str] = ()) -> list[str]:
    """The command line that runs a module as `python -m` does, with this process's Python and module path.

    Args:
        module: a module, or a package with a `__main__`; its arguments are to be appended.
        further_paths: directories added to the end of the module path.
    """
    flags = [
        text
        for text, given in (
            ("-I", sys.flags.isolated),
            ("-S", sys.flags.no_site),
            ("-B", sys.flags.dont_write_bytecode),
        )
        if given
    ]
    return [sys.executable, *flags, "-c", _RUN, ":".join([*sys.path, *further_paths]), module]
