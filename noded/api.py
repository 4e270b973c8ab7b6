"""The public door of noded: the only module that plugins import.

Everything here keeps its meaning within one `API_VERSION`; additions are possible at any time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from noded.errors import (
    Aborted,
    AlreadyExists,
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NodedError,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
    Unimplemented,
)
from noded.hookspecs import hookimpl
from noded.model.container import ContainerConfig
from noded.model.extension import Edit, Event, Finding
from noded.model.host import CgroupDriver, CgroupMode, HostFacts
from noded.model.paths import Layout
from noded.model.pod import PodConfig
from noded.model.runtime import (
    ExecResult,
    ExecStream,
    Exit,
    Runtime,
    RuntimeFeatures,
    RuntimeHost,
    RuntimeType,
    Sandbox,
    SandboxRef,
    SandboxStart,
    TaskCreate,
    TaskRef,
    TaskState,
    TaskUsage,
)
from noded.runtimes.oci_runtime import OciRuntime
from noded.runtimes.quirks import FeatureTable, OciOptions, OciQuirks
from noded.runtimes.shim_quirks import ShimOptions, ShimQuirks

if TYPE_CHECKING:
    from noded.runtimes.shim_runtime import ShimRuntime

API_VERSION = 1

__all__ = [
    "API_VERSION",
    "Aborted",
    "AlreadyExists",
    "CgroupDriver",
    "CgroupMode",
    "ContainerConfig",
    "DataLoss",
    "DeadlineExceeded",
    "Edit",
    "Event",
    "ExecResult",
    "ExecStream",
    "Exit",
    "FailedPrecondition",
    "FeatureTable",
    "Finding",
    "HostFacts",
    "Internal",
    "InvalidArgument",
    "Layout",
    "NodedError",
    "NotFound",
    "OciOptions",
    "OciQuirks",
    "OciRuntime",
    "PermissionDenied",
    "PodConfig",
    "ResourceExhausted",
    "Runtime",
    "RuntimeFeatures",
    "RuntimeHost",
    "RuntimeType",
    "Sandbox",
    "SandboxRef",
    "SandboxStart",
    "ShimOptions",
    "ShimQuirks",
    "ShimRuntime",
    "TaskCreate",
    "TaskRef",
    "TaskState",
    "TaskUsage",
    "Unavailable",
    "Unimplemented",
    "hookimpl",
]


def __getattr__(name: str) -> Any:
    """Load the shim driver when it is first asked for: few nodes have a handler that needs it."""
    if name == "ShimRuntime":
        from noded.runtimes.shim_runtime import ShimRuntime

        return ShimRuntime
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
