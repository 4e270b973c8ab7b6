"""`python -m tests.runtime.e2e.held_back serve ...`: noded that imports its core when it is told to.

It says on the FIFO `$NODED_TEST_HOLD` that it begins, by opening it, and goes on when that is written to.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from noded.cli.main import run
from noded.daemon import start


def main() -> int:
    import_ = start._import

    def held(table):
        Path(os.environ["NODED_TEST_HOLD"]).read_bytes()
        return import_(table)

    start._import = held
    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
