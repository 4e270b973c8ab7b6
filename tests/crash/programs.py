"""Programs between noded and the real ones that fail, hang, die or talk nonsense when told to."""

from __future__ import annotations

import os
import select
import shlex
from pathlib import Path

ARRIVE_SECONDS = 20.0

# Shell code that runs instead of the program; "$real" "$@" is the program itself.
FAIL = "cat >/dev/null; echo 'told to fail by the test' >&2; exit 1"
DIE = "kill -9 $$"
HANG = "exec sleep 100000"
NONSENSE = "cat >/dev/null; echo '}{ nonsense'; exit 0"
SILENT = "cat >/dev/null; exit 0"
FLOOD = "cat >/dev/null; yes flood | head -c 8000000; exit 0"
DO_AND_FAIL = '"$real" "$@" >/dev/null; echo "told to fail by the test" >&2; exit 1'
DO_AND_DIE = '"$real" "$@" >/dev/null; kill -9 $$'
DO_AND_HANG = '"$real" "$@" >/dev/null; exec sleep 100000'


class Stand:
    """A script in place of a program; what it does for a verb can be changed at any time.

    Args:
        verb: shell code that sets $verb, from the arguments or the environment.
    """

    def __init__(self, path: Path, real: Path, verb: str) -> None:
        self.path = path
        self._verbs = path.parent / f"{path.name}.verbs"
        self._verbs.mkdir(parents=True)
        os.mkfifo(self._verbs / "arrived")
        # For reading and writing, so that neither side waits for the other to open.
        self._arrivals = os.open(self._verbs / "arrived", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        directory = shlex.quote(str(self._verbs))
        path.write_text(
            "#!/bin/sh\n"
            f"real={shlex.quote(str(real))}\n"
            f"{verb}\n"
            f"if [ -e {directory}/$verb ]; then\n"
            f"    echo $verb >{directory}/arrived\n"
            f"    . {directory}/$verb\n"
            "fi\n"
            'exec "$real" "$@"\n'
        )
        path.chmod(0o755)

    def tell(self, verb: str, code: str) -> None:
        """From now on do this for the verb."""
        file = self._verbs / f"{verb}.new"
        file.write_text(code + "\n")
        file.rename(self._verbs / verb)

    def heal(self) -> None:
        """Be the real program again; forget who has come."""
        for file in self._verbs.iterdir():
            if file.name != "arrived":
                file.unlink()
        while select.select([self._arrivals], [], [], 0)[0]:
            os.read(self._arrivals, 4096)

    def wait_arrived(self) -> None:
        """Wait until the program has been run with a verb that was told something."""
        assert select.select([self._arrivals], [], [], ARRIVE_SECONDS)[0], f"nobody ran {self.path}"
        os.read(self._arrivals, 4096)

    def close(self) -> None:
        os.close(self._arrivals)


CNI_VERB = "verb=$CNI_COMMAND"
OCI_VERB = (
    "for verb; do case $verb in "
    "create|start|kill|delete|state|exec|features|update|--version) break;; esac; done"
)
