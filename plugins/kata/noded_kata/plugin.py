"""Runtime types `kata`, pods in virtual machines, and `shim`, any shim of containerd's runtime v2 API."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from noded.api import (
    Finding,
    InvalidArgument,
    Runtime,
    RuntimeHost,
    RuntimeType,
    ShimOptions,
    ShimQuirks,
    hookimpl,
)
from noded_kata.requirements import PACKAGE, PROGRAM, requirements

KATA = ShimQuirks(
    program=PROGRAM,
    package=PACKAGE,
    options="generic",
    # Processes live in the guest: on the host there are the hypervisor and its helpers.
    host_processes=False,
    # The virtual machine is started with the sandbox container.
    sandbox_container=True,
    version_args=("--version",),
)

RUNC_SHIM = "io.containerd.runc.v2"


@dataclass(frozen=True, slots=True)
class KataOptions:
    """`[runtimes.HANDLER]` of type `kata`."""

    path: str = ""  # name or absolute path of containerd-shim-kata-v2
    config_path: str = ""  # Kata's configuration.toml, "" = the shim's default
    size_with_overhead: bool = False  # the VM is larger by the RuntimeClass's overhead
    annotations: Mapping[str, str] = field(default_factory=dict)  # io.katacontainers.config.* of all pods
    environment: Mapping[str, str] = field(default_factory=dict)  # added to the shim's environment


@dataclass(frozen=True, slots=True)
class ShimTypeOptions:
    """`[runtimes.HANDLER]` of type `shim`."""

    runtime_type: str = RUNC_SHIM  # which shim, as containerd names it: io.containerd.NAME.vN
    path: str = ""  # name or absolute path of the shim, "" = what runtime_type says
    # message of the options: runc, generic or none; "" = the usual one
    options_type: Literal["", "runc", "generic", "none"] = ""
    config_path: str = ""  # configuration file that the shim is told (options "generic")
    config_type: str = ""  # type of that file, for shims that ask
    binary: str = ""  # OCI runtime (options "runc")
    root: str = ""  # directory of the OCI runtime's state (options "runc"), "" = STATE/runtimes/HANDLER
    no_pivot: bool = False  # do not use pivot_root (options "runc")
    host_processes: bool = True  # whether processes of containers are processes of the host
    sandbox_container: bool = False  # whether the shim needs a sandbox container in each pod
    update: bool = True  # whether it can change the limits of a live container
    environment: Mapping[str, str] = field(default_factory=dict)  # added to the shim's environment


def open_kata(handler: str, options: KataOptions, host: RuntimeHost) -> Runtime:
    """Open a handler of type `kata`. It is unavailable, with the reasons, where Kata cannot run."""
    from noded.api import ShimRuntime  # loads the shim driver

    shim = ShimOptions(
        path=options.path,
        config_path=options.config_path,
        annotations=options.annotations,
        size_with_overhead=options.size_with_overhead,
        environment=options.environment,
    )
    return ShimRuntime(
        handler, KATA, shim, host, check=lambda: requirements(options.path, options.config_path)
    )


def open_shim(handler: str, options: ShimTypeOptions, host: RuntimeHost) -> Runtime:
    """Open a handler of type `shim`.

    Raises: InvalidArgument naming the option.
    """
    from noded.api import ShimRuntime  # loads the shim driver

    runc = options.runtime_type.startswith("io.containerd.runc.")
    kind = options.options_type or ("runc" if runc else "generic")
    quirks = ShimQuirks(
        program=shim_program(handler, options.runtime_type),
        package="containerd" if runc else options.runtime_type,
        options=kind,
        oci_runtime="runc" if kind == "runc" else "",
        host_processes=options.host_processes,
        sandbox_container=options.sandbox_container,
        update=options.update,
    )
    shim = ShimOptions(
        path=options.path,
        config_path=options.config_path,
        type_url=options.config_type,
        binary=options.binary,
        root=options.root,
        no_pivot=options.no_pivot,
        environment=options.environment,
    )
    return ShimRuntime(handler, quirks, shim, host)


def shim_program(handler: str, runtime_type: str) -> str:
    """Return the program of a runtime type: io.containerd.runc.v2 is containerd-shim-runc-v2.

    Raises: InvalidArgument when it does not have that form.
    """
    parts = runtime_type.split(".")
    if len(parts) < 3 or not all(part.replace("-", "").replace("_", "").isalnum() for part in parts):
        raise InvalidArgument(
            f"runtimes.{handler}.runtime_type: {runtime_type!r} does not look like io.containerd.NAME.v2"
        )
    return f"containerd-shim-{parts[-2]}-{parts[-1]}"


@hookimpl
def noded_runtime_types() -> Iterable[RuntimeType]:
    return (
        RuntimeType("kata", KataOptions, open_kata, binaries=(PROGRAM,)),
        RuntimeType("shim", ShimTypeOptions, open_shim, binaries=("containerd-shim-runc-v2",)),
    )


@hookimpl
def noded_diagnose() -> Iterable[Finding]:
    return requirements("", "")
