"""The client's side of WebSocket, written for tests."""

from __future__ import annotations

import struct


def frame(opcode, data, *, fin=True, key=b"\x01\x02\x03\x04", masked=True):
    head = bytes([(0x80 if fin else 0) | opcode])
    bit = 0x80 if masked else 0
    if len(data) < 126:
        head += bytes([bit | len(data)])
    elif len(data) < 65536:
        head += bytes([bit | 126]) + struct.pack(">H", len(data))
    else:
        head += bytes([bit | 127]) + struct.pack(">Q", len(data))
    if not masked:
        return head + data
    return head + key + bytes(byte ^ key[index % 4] for index, byte in enumerate(data))


def parse(data):
    """Frames of the server: (opcode, payload)."""
    frames = []
    while data:
        opcode, length, at = data[0] & 15, data[1], 2
        assert data[0] & 0xF0 == 0x80
        assert length < 128, "a server must not mask"
        if length == 126:
            length, at = struct.unpack(">H", data[2:4])[0], 4
        elif length == 127:
            length, at = struct.unpack(">Q", data[2:10])[0], 10
        frames.append((opcode, data[at : at + length]))
        data = data[at + length :]
    return frames
