"""The node as a whole: clock, other runtimes, and the daemon itself."""

from __future__ import annotations

from collections.abc import Iterator

from noded.checks.facts import Facts
from noded.checks.result import Result, fail, ok, warn


def judge(facts: Facts) -> Iterator[Result]:
    """Clock, rivals, socket, daemon."""
    if facts.config_problem:
        yield fail(
            "config.valid",
            facts.config_problem,
            "noded does not start with it; this check looked at the defaults instead",
            "correct the file; noded config check",
        )
    if facts.clock_synchronized is False:
        yield warn(
            "node.clock",
            "the clock is not synchronized",
            "TLS to registries and the API server fails when it drifts, and times in logs mislead",
            "timedatectl set-ntp true  (or install chrony)",
        )
    elif facts.clock_synchronized:
        yield ok("node.clock", "synchronized")
    if facts.swap_bytes:
        yield ok("node.swap", f"{facts.swap_bytes >> 20} MiB")
    yield from _rivals(facts)
    yield from _socket(facts)
    yield from _daemon(facts)


def _rivals(facts: Facts) -> Iterator[Result]:
    processes, sockets = facts.rivals.processes, facts.rivals.sockets
    if not processes and not sockets:
        yield ok("node.other_runtimes", "none")
        return
    found = ", ".join((*processes, *sockets))
    name = next(iter(processes), "containerd")
    yield warn(
        "node.other_runtimes",
        f"running: {found}",
        "it uses the same CNI configuration; if it collects garbage or kubelet still talks to it, pods of "
        "both get into each other's way",
        f"systemctl disable --now {name}, once nothing needs it",
    )


def _socket(facts: Facts) -> Iterator[Result]:
    daemon = facts.daemon
    directory = daemon.listen.rpartition("/")[0] or "/"
    mode = daemon.directory_mode
    if mode is not None and ((mode & 0o022 and not mode & 0o1000) or daemon.directory_owner != 0):
        yield fail(
            "daemon.socket_directory",
            f"{directory} can be changed by others than root (mode {mode:04o})",
            "anyone can put a socket of their own in the place of noded's, and kubelet would trust it",
            f"chown root: {directory}; chmod 711 {directory}",
        )
    elif mode is not None:
        yield ok("daemon.socket_directory", f"{directory} is root's")
    if daemon.socket_mode is not None and daemon.socket_mode & 0o007:
        yield fail(
            "daemon.socket",
            f"{daemon.listen} is open to everyone (mode {daemon.socket_mode:04o})",
            "whoever may talk to noded is root on this node",
            f"chmod 660 {daemon.listen}; with noded.socket: SocketMode=0660",
        )


def _daemon(facts: Facts) -> Iterator[Result]:
    daemon = facts.daemon
    if not daemon.running:
        yield warn(
            "daemon.running",
            daemon.problem or f"nothing answers at {daemon.listen}",
            "what only a running daemon knows is not checked; pods that run go on, new ones do not start",
            "systemctl enable --now noded; journalctl -u noded",
        )
        return
    if facts.program_version and daemon.version and daemon.version != facts.program_version:
        yield warn(
            "daemon.running",
            f"the daemon is {daemon.version}, this program {facts.program_version}",
            "the daemon was not restarted after an upgrade: repairs in it are not in force",
            "systemctl restart noded  (pods go on)",
        )
    else:
        yield ok("daemon.running", f"noded {daemon.version} answers at {daemon.listen}")
    for kind, met, message in daemon.conditions:
        if not met and kind == "NodedImageStores":
            yield warn(
                "daemon.image_stores",
                message,
                "its images are not listed, and containers of them do not start",
                "mount it, or write it with `noded images export-store`; then systemctl reload noded",
            )
        # Debts are told below, with what to do about them.
        elif not met and kind != "NodedNoDebts":
            yield fail(
                f"daemon.{kind}",
                message or "not met",
                "kubelet reports the node as NotReady",
                "noded status; journalctl -u noded",
            )
    if daemon.debts:
        yield warn(
            "daemon.debts",
            f"{daemon.debts} teardowns failed and are retried",
            "addresses and other resources of pods that are gone stay taken",
            "noded debts list",
        )
