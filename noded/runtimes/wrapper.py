"""Running a runtime where it does not see what it would stumble over.

The cgroup2 mount of a hybrid host:

Some runtimes refuse a host with cgroup v1 controllers and a cgroup2 mount beside them. They work
in a mount namespace of their own in which that mount is gone. Propagation stays as it is: with
private or slave mounts a container could no longer propagate its mounts to the host.

A monitor executes one file, so the namespace is made by a small shell script.

/proc/sys/net/core in a pod's network namespace: an empty file system above it, in a mount
namespace of the one command that looks.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from noded.runtimes.script import ensure_script

_SCRIPT = """\
#!/bin/sh
exec unshare --mount --propagation unchanged /bin/sh -c '
mount --make-private /sys/fs/cgroup && umount /sys/fs/cgroup/unified && exec "$0" "$@"' {program} "$@"
"""


def wrapper_script(program: str) -> str:
    """Return the text of the script for one runtime program, an absolute path."""
    return _SCRIPT.format(program=shlex.quote(program))


def ensure_wrapper(path: Path, program: str) -> None:
    """Write the script unless it is there already. Blocks on a few file operations."""
    ensure_script(path, wrapper_script(program))


def without_net_core(netns: str, argv: Sequence[str]) -> list[str]:
    """Return a command that runs another, for which /proc/sys/net/core of a network namespace is empty.

    The command itself stays in the network namespace of the caller: abstract sockets belong to it.
    """
    script = 'nsenter --net="$0" mount -t tmpfs -o mode=555,size=4k tmpfs /proc/sys/net/core && exec "$@"'
    return ["unshare", "--mount", "--propagation=private", "/bin/sh", "-c", script, netns, *argv]
