"""A FUSE file system, spoken over /dev/fuse directly, whose answers can be held back.

It is one directory tree without files: every name is an empty directory. While held, requests for
attributes and names wait, as they do on a network file system whose server is gone.
"""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
import threading
from pathlib import Path
from types import TracebackType

_LIBC = ctypes.CDLL(None, use_errno=True)
_BUFFER_BYTES = 1 << 17
_IN = struct.Struct("<IIQQIIIxxxx")  # struct fuse_in_header
_OUT = struct.Struct("<IiQ")  # struct fuse_out_header
_ENOSYS = 38

_LOOKUP, _FORGET, _GETATTR, _STATFS, _INIT, _OPENDIR = 1, 2, 3, 17, 26, 27
_READDIR, _RELEASEDIR, _INTERRUPT, _DESTROY, _BATCH_FORGET = 28, 29, 36, 38, 42
_SILENT = frozenset({_FORGET, _INTERRUPT, _BATCH_FORGET})
_HELD = frozenset({_LOOKUP, _GETATTR})
_ATTRIBUTES = struct.pack("<6Q10I", 1, 0, 0, 0, 0, 0, 0, 0, 0, 0o40755, 2, 0, 0, 0, 4096, 0)
_ANSWERS = {
    _INIT: struct.pack("<IIIIHHIIHHI7I", 7, 31, 1 << 16, 0, 16, 12, 1 << 16, 1, 0, 0, 0, *[0] * 7),
    _GETATTR: struct.pack("<QII", 0, 0, 0) + _ATTRIBUTES,
    _LOOKUP: struct.pack("<QQQQII", 2, 1, 0, 0, 0, 0) + _ATTRIBUTES,
    _STATFS: bytes(80),
    _OPENDIR: bytes(16),
    _READDIR: b"",
    _RELEASEDIR: b"",
}


class HungFilesystem:
    """Mounted at `target` while entered; served by a thread of the test."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self._device = -1
        self._lock = threading.Lock()
        self._holding = False
        self._waiting: list[tuple[int, int]] = []
        self._arrived = threading.Event()
        self._server = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> HungFilesystem:
        self.target.mkdir(parents=True, exist_ok=True)
        self._device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self._device},rootmode=40000,user_id=0,group_id=0,allow_other"
        if _LIBC.mount(b"hung", os.fsencode(self.target), b"fuse", 0, options.encode()):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(self.target))
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
        # The last unmount anywhere ends the read in the thread with ENODEV.
        subprocess.run(["umount", "--lazy", self.target], check=False)
        self._server.join(10)
        os.close(self._device)

    def hold(self) -> None:
        """Answer nothing about files from now on."""
        with self._lock:
            self._holding = True
            self._arrived.clear()

    def wait_held(self, seconds: float = 20.0) -> None:
        """Wait until a request waits."""
        assert self._arrived.wait(seconds), f"nobody looked at {self.target} within {seconds} s"

    def release(self) -> None:
        """Answer everything that waits, and what comes."""
        with self._lock:
            self._holding = False
            for opcode, unique in self._waiting:
                self._answer(opcode, unique)
            self._waiting.clear()

    def _serve(self) -> None:
        while True:
            try:
                request = os.read(self._device, _BUFFER_BYTES)
            except OSError:  # unmounted
                return
            _, opcode, unique, *_ = _IN.unpack_from(request)
            if opcode in _SILENT:
                continue
            with self._lock:
                if self._holding and opcode in _HELD:
                    self._waiting.append((opcode, unique))
                    self._arrived.set()
                else:
                    self._answer(opcode, unique)

    def _answer(self, opcode: int, unique: int) -> None:
        body = _ANSWERS.get(opcode)
        head = _OUT.pack(_OUT.size + len(body or b""), 0 if body is not None else -_ENOSYS, unique)
        try:
            os.write(self._device, head + (body or b""))
        except OSError:  # the asker was killed meanwhile
            return
