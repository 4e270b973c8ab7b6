"""`python -m noded` and the `noded` program."""

from __future__ import annotations

import sys

from noded.cli.main import run


def main() -> None:
    """Run the command line of this process and exit with its status."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
