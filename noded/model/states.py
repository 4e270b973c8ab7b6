"""The states that clients see."""

from __future__ import annotations

from enum import IntEnum


class SandboxState(IntEnum):
    """CRI `PodSandboxState`."""

    READY = 0
    NOTREADY = 1


class ContainerState(IntEnum):
    """CRI `ContainerState`."""

    CREATED = 0
    RUNNING = 1
    EXITED = 2
    UNKNOWN = 3
