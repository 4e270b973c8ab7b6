"""Several byte streams over one socket, as NRI plugins and runtimes have them. Pure.

A frame is a header of eight bytes, big-endian, and its data (containerd/nri, pkg/net/multiplex):

    connection id (4) | length of the data (4) | data

Nothing opens or closes a connection: both sides know the numbers. The plugin serves 1, the runtime
serves 2, 0 is reserved. On each connection ttrpc is spoken.
"""

from __future__ import annotations

import struct
from typing import Final

from noded.wire.ttrpc import MAX_DATA_BYTES

PLUGIN_CONNECTION: Final = 1
RUNTIME_CONNECTION: Final = 2
MAX_PAYLOAD_BYTES: Final = MAX_DATA_BYTES + 10  # one ttrpc frame with its header

# A Go plugin reads each frame into a buffer and fails when it is too small. Its ttrpc reads with a
# buffer of 4 KiB, and past that directly into the rest of the message: so the first piece of a
# message has at most 4 KiB, and the second has all the rest.
_FIRST_BYTES: Final = 4096

_HEADER: Final = struct.Struct(">II")


def encode(connection_id: int, message: bytes) -> bytes:
    """The frames that carry one ttrpc frame.

    Raises: ValueError when it is larger than a peer has to take.
    """
    if len(message) > MAX_PAYLOAD_BYTES:
        raise ValueError(f"a message of {len(message)} bytes is larger than {MAX_PAYLOAD_BYTES}")
    first, rest = message[:_FIRST_BYTES], message[_FIRST_BYTES:]
    data = _HEADER.pack(connection_id, len(first)) + first
    return data + _HEADER.pack(connection_id, len(rest)) + rest if rest else data


class MuxReader:
    """Cuts a byte stream into the data of its connections.

    Holds at most one incomplete frame and what was fed with it.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Take bytes as they arrive; return (connection id, data) of the frames complete now.

        Raises: ValueError when a header announces more than the protocol allows: the place of the
            next header is then unknown.
        """
        self._buffer += data
        pieces = []
        while len(self._buffer) >= _HEADER.size:
            connection_id, length = _HEADER.unpack_from(self._buffer)
            if length > MAX_PAYLOAD_BYTES:
                raise ValueError(f"a frame announces {length} bytes, more than {MAX_PAYLOAD_BYTES}")
            end = _HEADER.size + length
            if len(self._buffer) < end:
                break
            pieces.append((connection_id, bytes(self._buffer[_HEADER.size : end])))
            del self._buffer[:end]
        return pieces
