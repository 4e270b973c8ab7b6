"""Runtime type `runsc`: gVisor, a kernel in user space between the container and the host."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from noded.api import (
    InvalidArgument,
    OciOptions,
    OciQuirks,
    OciRuntime,
    Runtime,
    RuntimeHost,
    RuntimeType,
    hookimpl,
)

_PLATFORMS = ("", "systrap", "ptrace", "kvm")
_NETWORKS = ("", "sandbox", "host", "none")

RUNSC = OciQuirks(
    program="runsc",
    package="runsc",
    update=False,
    features_verb=False,
    # Processes live in the sentry: on the host there is one process for the whole pod.
    host_processes=False,
    internal_pid_file=True,
    needs_infra=True,
)


@dataclass(frozen=True, slots=True)
class RunscOptions:
    """`[runtimes.HANDLER]` of type `runsc`."""

    path: str = ""  # name or absolute path of runsc
    root: str = ""  # absolute directory for runsc's own state, "" = STATE/runtimes/HANDLER
    platform: str = ""  # how system calls are caught: systrap, ptrace or kvm; "" = runsc's default
    network: str = ""  # sandbox (gVisor's own stack), host (the pod's) or none; "" = runsc's default
    global_args: tuple[str, ...] = ()  # further flags, put before every command


def open_runsc(handler: str, options: RunscOptions, host: RuntimeHost) -> Runtime:
    """Open a handler of type `runsc`.

    Raises: InvalidArgument naming the option.
    """
    flags = []
    for name, value, known in (
        ("platform", options.platform, _PLATFORMS),
        ("network", options.network, _NETWORKS),
    ):
        if value not in known:
            choices = ", ".join(choice for choice in known if choice)
            raise InvalidArgument(f"runtimes.{handler}.{name}: {value!r} is none of {choices}")
        if value:
            flags.append(f"--{name}={value}")
    quirks = replace(RUNSC, global_args=tuple(flags))
    return OciRuntime(handler, quirks, OciOptions(options.path, options.root, options.global_args), host)


@hookimpl
def noded_runtime_types() -> Iterable[RuntimeType]:
    return (RuntimeType("runsc", RunscOptions, open_runsc, binaries=("runsc", "conmon")),)
