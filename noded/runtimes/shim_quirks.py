"""How shims differ, as data, and what operators may set. Light: plugins import this at start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from noded.model.pod import PodConfig

OptionsType = Literal["", "runc", "generic", "none"]


@dataclass(frozen=True, slots=True)
class ShimQuirks:
    """What noded must know of one shim (containerd's runtime v2 API).

    Args:
        program: name of the shim's program, looked up in PATH unless the handler's options give a path.
        package: what to install when it is missing.
        options: the message in which its options travel: "runc" containerd.runc.v1.Options,
            "generic" runtimeoptions.v1.Options; "none" for no options.
        oci_runtime: OCI runtime that the shim runs, "" when it runs none.
        host_processes: whether the tasks' processes are processes of the host, in the tasks'
            cgroups. Then signals go straight to them; else through the shim.
        sandbox_container: whether the shim needs a sandbox container in each pod, as shims that
            start a virtual machine do.
        update: whether limits of a live task can be changed.
        version_args: arguments that make the program print its version.
    """

    program: str
    package: str
    options: OptionsType = "generic"
    oci_runtime: str = ""
    host_processes: bool = True
    sandbox_container: bool = False
    update: bool = True
    version_args: tuple[str, ...] = ("-v",)


@dataclass(frozen=True, slots=True)
class ShimOptions:
    """What an operator may set for any shim; plugins have tables of their own and fill this in.

    Args:
        path: name or absolute path of the shim, "" = the quirks' program.
        config_path: configuration file that the shim is told, "" = its own default ("generic" only).
        type_url: what `config_path` is, for shims that ask ("generic" only).
        binary: OCI runtime, "" = the quirks' ("runc" only).
        root: absolute directory of the OCI runtime's state, "" = STATE/runtimes/HANDLER ("runc" only).
        no_pivot: do not use pivot_root ("runc" only).
        annotations: added to those of the sandbox container.
        size_with_overhead: whether the pod's overhead is added to the size that annotations tell.
        environment: added to the shim's environment.
    """

    path: str = ""
    config_path: str = ""
    type_url: str = ""
    binary: str = ""
    root: str = ""
    no_pivot: bool = False
    annotations: Mapping[str, str] = field(default_factory=dict)
    size_with_overhead: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)


def sizing_annotations(config: PodConfig, *, with_overhead: bool) -> dict[str, str]:
    """Tell a shim that starts a virtual machine how large the pod is; what is not limited is left out.

    Args:
        with_overhead: add the RuntimeClass's overhead. Kata adds memory for itself, so by default
            the containers' own share is told, as containerd and CRI-O do.
    """
    resources = config.resources
    if resources is None:
        return {}
    overhead = config.overhead if with_overhead else None
    quota, period = resources.cpu_quota_us, resources.cpu_period_us
    shares, memory = resources.cpu_shares, resources.memory_limit_bytes
    if overhead is not None:
        if quota > 0 and overhead.cpu_quota_us > 0:
            quota += overhead.cpu_quota_us * period // (overhead.cpu_period_us or period)
        if memory > 0:
            memory += overhead.memory_limit_bytes
    sizes = {"cpu-period": period, "cpu-quota": quota, "cpu-shares": shares, "memory": memory}
    return {f"io.kubernetes.cri.sandbox-{name}": str(value) for name, value in sizes.items() if value > 0}
