"""All CDI files of the node: which one describes a device (CDI SPEC.md "Spec directories").

A device of a later directory replaces those of earlier ones. Two files of one directory with the same
device contradict each other: neither is used, unless a later directory decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from noded.errors import FailedPrecondition
from noded.spec.cdi.document import CdiSpec
from noded.spec.cdi.edits import ContainerEdits, joined


class CdiFile(NamedTuple):
    """A file of a spec directory: what it says, or why it says nothing.

    Args:
        priority: position of its directory in the configuration.
    """

    path: str
    priority: int
    spec: CdiSpec | None
    problem: str = ""


class Catalogue:
    """The devices of all files, and what is wrong with the others."""

    def __init__(self, files: Iterable[CdiFile]) -> None:
        self.files = tuple(files)
        self._found: dict[str, list[CdiFile]] = {}
        for file in self.files:
            if file.spec is not None:
                for name in file.spec.devices:
                    self._add(f"{file.spec.kind}={name}", file)

    def _add(self, device: str, file: CdiFile) -> None:
        found = self._found.setdefault(device, [])
        if not found or found[0].priority == file.priority:
            found.append(file)
        elif found[0].priority < file.priority:
            self._found[device] = [file]

    @property
    def devices(self) -> tuple[str, ...]:
        """Names of the devices that can be used, sorted."""
        return tuple(sorted(name for name, files in self._found.items() if len(files) == 1))

    @property
    def problems(self) -> Mapping[str, str]:
        """What is wrong, by file or device: for an operator who asks why a device is missing."""
        broken = {file.path: file.problem for file in self.files if file.spec is None}
        twice = {name: _conflict(files) for name, files in self._found.items() if len(files) > 1}
        return {**broken, **twice}

    def file_of(self, device: str) -> str:
        """Path of the file that describes a device, "" when none can be used."""
        files = self._found.get(device, [])
        return files[0].path if len(files) == 1 else ""

    def edits(self, devices: Iterable[str]) -> ContainerEdits:
        """Everything that these devices change: each file's own edits come before its first device's.

        Raises: FailedPrecondition naming every device that cannot be had, and why.
        """
        chosen: list[ContainerEdits] = []
        seen: set[str] = set()
        missing: list[str] = []
        for device in devices:
            files = self._found.get(device, [])
            if len(files) != 1 or files[0].spec is None:
                missing.append(f"{device}: {_conflict(files) if files else 'no file describes it'}")
                continue
            path, spec = files[0].path, files[0].spec
            if path not in seen:
                seen.add(path)
                chosen.append(spec.edits)
            chosen.append(spec.devices[device.partition("=")[2]])
        if missing:
            broken = [f"{file.path}: {file.problem}" for file in self.files if file.spec is None]
            raise FailedPrecondition(
                "; ".join(
                    [f"CDI device {text}" for text in missing]
                    + [f"unusable CDI file {text}" for text in broken]
                )
            )
        return joined(chosen)


def _conflict(files: Iterable[CdiFile]) -> str:
    return f"described by both {' and '.join(sorted(file.path for file in files))}, remove one"
