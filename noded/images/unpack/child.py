"""The forked process that extracts one layer and reports."""

from __future__ import annotations

import json
import os

from noded.images.unpack.compression import LayerStream
from noded.images.unpack.confine import confine, die_with_parent, set_name
from noded.images.unpack.extract import Extractor
from noded.images.unpack.faults import DEFECT, MEMORY, SYSTEM, LayerFault
from noded.images.unpack.limits import UnpackLimits


def run(parent: int, source: int, destination: int, report: int, limits: UnpackLimits) -> None:
    """Extract `source` into `destination`, write one JSON object to `report`. Never raises.

    The object is an UnpackReport, or `{"fault": kind, "message", "entry", "errno"}`, with
    `"after": true` when `entry` is the last one before what is at fault.
    """
    try:
        die_with_parent(parent)
        set_name(b"noded-layer")
        _silence()
        confine(destination, limits.memory_bytes)
        answer = Extractor(LayerStream(source, limits), limits).run()._asdict()
    except LayerFault as fault:
        answer = {**_fault(fault.kind, fault.message, fault.entry, fault.number), "after": fault.after}
    except MemoryError:
        answer = _fault(MEMORY, f"it needs more than {limits.memory_bytes} bytes of memory")
    except OSError as error:
        answer = _fault(SYSTEM, error.strerror or str(error), number=error.errno or 0)
    except Exception as error:
        answer = _fault(DEFECT, f"{type(error).__name__}: {error}")
    data = memoryview(json.dumps(answer).encode())
    while data:
        data = data[os.write(report, data) :]


def _silence() -> None:
    """Let go of the daemon's terminal or log: the report is the only way out."""
    null = os.open("/dev/null", os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    os.close(null)


def _fault(kind: str, message: str, entry: bytes = b"", number: int = 0) -> dict[str, object]:
    return {"fault": kind, "message": message, "entry": os.fsdecode(entry), "errno": number}
