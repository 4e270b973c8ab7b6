"""Runtime type `example`: runc, with containers that know which class of node they run on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noded.api import (
    ContainerConfig,
    Edit,
    Event,
    FeatureTable,
    Finding,
    OciOptions,
    OciQuirks,
    OciRuntime,
    Runtime,
    RuntimeHost,
    RuntimeType,
    hookimpl,
)

RUNC = OciQuirks(program="runc", package="runc", features=FeatureTable())
NODE_CLASS = Path("/etc/machine-id")


@dataclass(frozen=True, slots=True)
class Options:
    """`[runtimes.HANDLER]` of type `example`."""

    path: str = ""  # name or absolute path of runc


def open_example(handler: str, options: Options, host: RuntimeHost) -> Runtime:
    return OciRuntime(handler, RUNC, OciOptions(path=options.path), host)


@hookimpl
def noded_runtime_types() -> Iterable[RuntimeType]:
    return (RuntimeType("example", Options, open_example, binaries=("runc", "conmon")),)


@hookimpl
def noded_spec_edits(spec: Mapping[str, Any], container: ContainerConfig) -> Iterable[Edit]:
    yield Edit(("process", "env"), f"EXAMPLE_CONTAINER={container.name}", append=True)


@hookimpl
def noded_observe(event: Event) -> None:
    print(f"example: {event.kind} {event.sandbox_id[:12]}")


@hookimpl
def noded_diagnose(host: RuntimeHost) -> Iterable[Finding]:
    yield Finding(str(NODE_CLASS), NODE_CLASS.exists(), "names the node")
