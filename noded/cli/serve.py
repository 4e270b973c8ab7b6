"""`noded serve`: become the daemon."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def serve(arguments: argparse.Namespace) -> int:
    """Run the daemon in this process until it is told to stop; returns its exit status."""
    with _without("rich"):
        from noded import daemon

    return daemon.main(Path(arguments.config))


@contextmanager
def _without(module: str) -> Iterator[None]:
    """Let imports find no such module: structlog takes rich for tracebacks, at 3 MB and 50 ms of start."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment] # documented in importlib: import fails
    try:
        yield
    finally:
        del sys.modules[module]
