"""Runtime type `kata`: each pod in a virtual machine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NoReturn

from noded.api import RuntimeHost, RuntimeType, Unimplemented, hookimpl


@dataclass(frozen=True, slots=True)
class KataOptions:
    """`[runtimes.HANDLER]` of type `kata`."""

    path: str = ""  # name or absolute path of containerd-shim-kata-v2
    config_path: str = ""  # Kata's configuration.toml, "" = the shim's default


def open_kata(handler: str, options: KataOptions, host: RuntimeHost) -> NoReturn:
    """Refuse: Kata is reached through a shim only, and noded has no shim driver yet."""
    raise Unimplemented(
        f"handler {handler!r} of type kata cannot be used: this version of noded has no driver for shims"
    )


@hookimpl
def noded_runtime_types() -> Iterable[RuntimeType]:
    return (RuntimeType("kata", KataOptions, open_kata, binaries=("containerd-shim-kata-v2",)),)
