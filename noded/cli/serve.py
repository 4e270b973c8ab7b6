"""`noded serve`: become the daemon."""

from __future__ import annotations

import argparse
from pathlib import Path


def serve(arguments: argparse.Namespace) -> int:
    """Run the daemon in this process until it is told to stop; returns its exit status."""
    from noded.daemon import start

    return start.main(Path(arguments.config))
