"""The interface of a storage driver."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from noded.images.overlay import Writable
from noded.model.pod import UserNamespace


@dataclass(frozen=True, slots=True)
class Rootfs:
    """The root file system that a container is to have.

    Args:
        target: where it is to be mounted; exists.
        data: the container's own directory, which survives a reboot; exists, for root only.
        scratch: a directory of the container that need not survive.
        chain: chain IDs of the layers to show, top to bottom.
        mapping: of the pod's user namespace, None = none.
        mount_label: SELinux label of all files, "" = the file system's own.
    """

    target: Path
    data: Path
    scratch: Path
    chain: Sequence[str]
    mapping: UserNamespace | None
    mount_label: str = ""


class Stack(Protocol):
    """Mounts layers above each other, as `noded.images.overlay.mount_overlay` does."""

    def __call__(
        self, target: Path, lowers: Sequence[Path], scratch: Path, writable: Writable | None,
        mount_label: str = "",
    ) -> None: ...  # fmt: skip


class Driver(Protocol):
    """One way to make root file systems. All methods block; one object serves all containers."""

    name: str
    stack: Stack  # for image volumes

    def check(self) -> None:
        """Look whether the node can do it.

        Raises: FailedPrecondition naming what is missing and the cure.
        """

    def prepare(self, rootfs: Rootfs, check: Callable[[], object]) -> None:
        """Make and mount a root file system. What an earlier, interrupted call made is kept or redone;
        what the container wrote is kept.

        Args:
            check: called now and then; what it raises ends the work.

        Raises: FailedPrecondition, ResourceExhausted... naming what failed.
        """
