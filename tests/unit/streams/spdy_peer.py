"""The client's side of SPDY/3.1, written for tests: it shares nothing with noded's but the dictionary."""

from __future__ import annotations

import struct
import zlib

from noded.wire.spdy_headers import DICTIONARY


class Peer:
    """Builds frames, and takes apart what the server sends."""

    def __init__(self):
        self._deflate = zlib.compressobj(zdict=DICTIONARY)
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._buffer = b""

    def block(self, headers):
        raw = struct.pack(">I", len(headers))
        for name, value in headers.items():
            raw += struct.pack(">I", len(name)) + name.encode()
            raw += struct.pack(">I", len(value)) + value.encode()
        return self._deflate.compress(raw) + self._deflate.flush(zlib.Z_SYNC_FLUSH)

    def control(self, kind, body, flags=0, version=3):
        return struct.pack(">HHI", 0x8000 | version, kind, flags << 24 | len(body)) + body

    def open(self, stream_id, headers, *, fin=False):
        return self.control(1, struct.pack(">IIH", stream_id, 0, 0) + self.block(headers), int(fin))

    def data(self, stream_id, data, *, fin=False):
        return struct.pack(">II", stream_id, int(fin) << 24 | len(data)) + data

    def window_update(self, stream_id, delta):
        return self.control(9, struct.pack(">II", stream_id, delta))

    def settings(self, window):
        return self.control(4, struct.pack(">III", 1, 7, window))

    def reset(self, stream_id, status=5):
        return self.control(3, struct.pack(">II", stream_id, status))

    def receive(self, data):
        """Frames as tuples: ("data", id, bytes, fin) or (type number, body)."""
        self._buffer += data
        frames = []
        while len(self._buffer) >= 8:
            first, second = struct.unpack(">II", self._buffer[:8])
            length = second & 0xFFFFFF
            if len(self._buffer) < 8 + length:
                break
            body, self._buffer = self._buffer[8 : 8 + length], self._buffer[8 + length :]
            if first & 0x80000000:
                if first & 0xFFFF == 2:
                    self._inflate.decompress(body[4:])
                frames.append((first & 0xFFFF, body))
            else:
                frames.append(("data", first, body, bool(second >> 24 & 1)))
        return frames
