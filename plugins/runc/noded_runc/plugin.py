"""Runtime types `runc` and `crun`."""

from __future__ import annotations

from collections.abc import Iterable

from noded.api import (
    FeatureTable,
    OciOptions,
    OciQuirks,
    OciRuntime,
    Runtime,
    RuntimeHost,
    RuntimeType,
    hookimpl,
)

RUNC = OciQuirks(
    program="runc",
    package="runc",
    # Before 1.1 there is no `features` verb, and no ability that it would show.
    features=FeatureTable(),
)

CRUN = OciQuirks(
    program="crun",
    package="crun",
    refuses_hybrid_cgroups=True,
    masked_directories="/run/crun/.empty-directory",
    # Before 1.8.5 or so there is no `features` verb. Found with 1.8.1: recursive read-only mounts,
    # uidMappings of mounts and user namespaces work; ociVersion 1.2.0 is refused.
    features=FeatureTable(
        recursive_read_only_mounts=(1, 8, 1),
        user_namespaces=(1, 8, 1),
        idmap_mounts=(1, 8, 1),
        seccomp_notify=(0, 19),
        highest_oci_version="1.1.0",
    ),
)


def open_runc(handler: str, options: OciOptions, host: RuntimeHost) -> Runtime:
    """Open a handler of type `runc`; also for other programs with the same command line."""
    return OciRuntime(handler, RUNC, options, host)


def open_crun(handler: str, options: OciOptions, host: RuntimeHost) -> Runtime:
    """Open a handler of type `crun`."""
    return OciRuntime(handler, CRUN, options, host)


@hookimpl
def noded_runtime_types() -> Iterable[RuntimeType]:
    return (
        RuntimeType("runc", OciOptions, open_runc, binaries=("runc", "conmon")),
        RuntimeType("crun", OciOptions, open_crun, binaries=("crun", "conmon")),
    )
