"""Puts noded's own packages on the module path of the system's Python.

Run with -I and -S: neither the environment nor the system's packages can change what noded imports.
The directories, first to last: what an administrator adds (plugins), noded and the pure Python
packages, the packages compiled for this Python.

Python 3.6 must be able to read this file, to say that it is too old.
"""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))  # /usr/lib/noded, or what a removal kept of it
LOCAL = "/usr/local/lib/noded"


def prepare() -> None:
    """Change sys.path, or exit with a message when noded was not built for this Python."""
    compiled = os.path.join(HERE, directory())
    if not os.path.isdir(compiled):
        known = ", ".join(supported()) or "none: it is damaged"
        sys.exit(
            f"noded: {sys.executable} is Python {described()}; this package of noded works with {known}. "
            "Install noded for this release of the system, or make /usr/bin/python3 one of these."
        )
    sys.path.remove(HERE)
    sys.path += [path for path in (LOCAL, os.path.join(HERE, "common"), compiled) if os.path.isdir(path)]


def directory() -> str:
    """The name of the directory for this Python: that of its ABI, as in the names of wheels."""
    if sys.implementation.name != "cpython":
        return sys.implementation.name
    return f"cp{sys.version_info[0]}{sys.version_info[1]}{sys.abiflags}"


def described() -> str:
    """This Python, as a person would name it."""
    kind = "" if sys.implementation.name == "cpython" else f" ({sys.implementation.name})"
    return f"{sys.version_info[0]}.{sys.version_info[1]}{sys.abiflags}{kind}"


def supported() -> "list[str]":
    """The Pythons that there are directories for, oldest first."""
    names = [name[2:] for name in os.listdir(HERE) if name.startswith("cp") and name[2:].isdigit()]
    return [f"{name[0]}.{name[1:]}" for name in sorted(names, key=int)]
