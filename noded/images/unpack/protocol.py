"""What daemon and zygote say to each other; the zygote's module has the whole story."""

from __future__ import annotations

import struct

READY = b"ready"
DESCRIPTORS = 4
STATUS = struct.Struct("=i")  # of a child that has ended
