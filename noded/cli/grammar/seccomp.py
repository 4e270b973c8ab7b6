"""`seccomp`."""

from __future__ import annotations

from noded.cli.grammar.parts import Commands, command, daemon_options, group


def declare(commands: Commands) -> None:
    """Seccomp profiles."""
    actions = group(commands, "seccomp", "seccomp profiles from what workloads call")
    record = command(
        actions,
        "record",
        "the profile of a recorded container; one that is not is recorded from its next start",
        "noded.cli.seccomp:record",
        "noded seccomp record 4f1a0c22d9\nnoded seccomp record 4f1a0c22d9 -c web -o web.json",
        notes="A running container cannot be recorded, since filters are for ever: restart it after "
        "the first call, let it do all that it does, and call again. Its system calls are slow meanwhile. "
        "Exit status: 0 with a profile, 1 when nothing is recorded yet.",
    )
    record.add_argument("pod", metavar="POD", help="pod sandbox id, or an unambiguous start of one")
    record.add_argument("-c", "--container", default="", metavar="NAME", help="one container of the pod")
    record.add_argument("-o", "--output", default="", metavar="FILE", help="write the profile to this file")
    daemon_options(record, json="pods:SeccompRecorded")
