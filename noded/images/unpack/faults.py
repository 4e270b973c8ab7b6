"""Why a layer could not be extracted, in a form that crosses a process border."""

from __future__ import annotations

CORRUPT = "corrupt"  # the bytes are not what they claim to be: truncated, bad checksum, wrong digest
REFUSED = "refused"  # the layer asks for something that is forbidden or unsupported, or breaks a limit
SYSTEM = "system"  # the kernel said no; `number` is the errno
MEMORY = "memory"  # the child's address space limit was reached
DEFECT = "defect"  # an exception that nobody foresaw


class LayerFault(Exception):
    """Extraction stopped.

    `entry` is the name of the tar entry at fault; with `after`, of the last one before what is at fault,
    b"" when there was none.
    """

    def __init__(self, kind: str, message: str, *, entry: bytes = b"", number: int = 0) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.entry = entry
        self.number = number
        self.after = False


def corrupt(message: str) -> LayerFault:
    """A layer that is not what it should be, whoever reads it."""
    return LayerFault(CORRUPT, message)


def refused(message: str) -> LayerFault:
    """A layer that is readable, but must not be unpacked."""
    return LayerFault(REFUSED, message)
