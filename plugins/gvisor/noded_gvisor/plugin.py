"""Runtime type `runsc`: gVisor, a kernel in user space between the container and the host.

A pod is one sandbox process, in which all its containers run; a second process serves each
container's files. What follows from that for operators:

- Limits hold for the pod as a whole. runsc cannot change them while it runs.
- `network = "sandbox"` is gVisor's own network stack and its default: the pod's interface is taken
  over by it. `host` uses the stack of the pod's network namespace: slower to reach, but everything
  that looks into that namespace, like port forwarding, works.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from noded.api import (
    FeatureTable,
    Finding,
    InvalidArgument,
    OciOptions,
    OciQuirks,
    OciRuntime,
    Runtime,
    RuntimeHost,
    RuntimeType,
    hookimpl,
)

RUNSC = OciQuirks(
    program="runsc",
    package="runsc",
    update=False,
    features_verb=False,
    # Its kernel has nothing that they would be for, and releases that know their names are few.
    features=FeatureTable(unknown_capabilities=("CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE")),
    # Processes live in the sentry: on the host there is one process for the whole pod.
    host_processes=False,
    internal_pid_file=True,
    needs_infra=True,
    stand_in=True,
)


@dataclass(frozen=True, slots=True)
class RunscOptions:
    """`[runtimes.HANDLER]` of type `runsc`."""

    path: str = ""  # name or absolute path of runsc
    root: str = ""  # absolute directory for runsc's own state, "" = STATE/runtimes/HANDLER
    # how system calls are caught: systrap, kvm, ptrace; "" = runsc's default
    platform: Literal["", "systrap", "ptrace", "kvm"] = ""
    # sandbox (gVisor's own stack), host (that of the pod's network namespace) or none
    network: Literal["", "sandbox", "host", "none"] = ""
    # writable layer above mounts, MOUNT:MEDIUM as in runsc's --overlay2, e.g. root:memory; none = off
    overlay: str = ""
    # of the root file system: shared where others change it behind runsc's back, else exclusive;
    # "" = runsc's default
    file_access: Literal["", "exclusive", "shared"] = ""
    # the same of volumes: exclusive or shared; "" = runsc's default
    file_access_mounts: Literal["", "exclusive", "shared"] = ""
    # access to unix sockets of the host in volumes: none, open, create or all; "" = runsc's default
    host_uds: Literal["", "none", "open", "create", "all"] = ""
    debug: bool = False  # write runsc's debug logs
    debug_log: str = ""  # absolute directory for them, "" = STATE/runtimes/HANDLER-debug
    strace: bool = False  # put system calls of the containers into the debug logs
    global_args: tuple[str, ...] = ()  # further flags, put before every command


def flags(handler: str, options: RunscOptions, host: RuntimeHost) -> Iterator[str]:
    """runsc's global flags for a handler.

    Raises: InvalidArgument naming the option.
    """
    for flag, value in (
        ("platform", options.platform),
        ("network", options.network),
        ("overlay2", options.overlay),
        ("file-access", options.file_access),
        ("file-access-mounts", options.file_access_mounts),
        ("host-uds", options.host_uds),
    ):
        if value:
            yield f"--{flag}={value}"
    if options.debug:
        directory = options.debug_log or str(host.layout.state / "runtimes" / f"{handler}-debug")
        if not Path(directory).is_absolute():
            raise InvalidArgument(f"runtimes.{handler}.debug_log: {directory!r} is not an absolute path")
        # With a slash at the end runsc makes one file for each command.
        yield from ("--debug", f"--debug-log={directory}/")
    if options.strace:
        yield "--strace"


def quirks_of(handler: str, options: RunscOptions, host: RuntimeHost) -> OciQuirks:
    """How runsc differs from runc with these options. Raises: InvalidArgument naming the option."""
    on_host = options.network == "host"
    own_stack = options.network in ("", "sandbox")
    return replace(
        RUNSC,
        global_args=tuple(flags(handler, options, host)),
        # With the pod's own network the sentry opens the containers' sockets, with its own rights.
        infra_capabilities=("CAP_NET_BIND_SERVICE",) if on_host else (),
        features=replace(
            RUNSC.features,
            # Before that release read(2) of such a socket answers EAGAIN when nothing is there yet.
            waiting_reads=(20230214,) if on_host else (),
            # The verb is there since 20230417, but until this release more than 16 KiB at once, or an
            # end at the wrong moment, made the sandbox process panic: the pod with all its containers.
            forwards=(20260824,) if own_stack else None,
        ),
        own_network=own_stack,
        hides_net_core=own_stack,
    )


def open_runsc(handler: str, options: RunscOptions, host: RuntimeHost) -> Runtime:
    """Open a handler of type `runsc`."""
    quirks = quirks_of(handler, options, host)
    return OciRuntime(handler, quirks, OciOptions(options.path, options.root, options.global_args), host)


@hookimpl
def noded_runtime_types() -> Iterable[RuntimeType]:
    return (RuntimeType("runsc", RunscOptions, open_runsc, binaries=("runsc", "conmon")),)


@hookimpl
def noded_diagnose(host: RuntimeHost) -> Iterable[Finding]:
    if shutil.which("runsc") is None:
        return  # a node without gVisor is nothing to repair; a configured handler says it itself
    kvm = Path("/dev/kvm").exists()
    yield Finding(
        "gVisor platform kvm", True, "/dev/kvm is there" if kvm else "no /dev/kvm: use another platform"
    )
    init = shutil.which("catatonit")
    yield Finding("gVisor sandbox container", init is not None, init or "install the package catatonit")
