"""An NRI plugin that shares no code with noded: own framing, own ttrpc, protoc's messages.

    plugin = NriPlugin(daemon.nri_socket, "10", "adjuster")
    plugin.on["CreateContainer"] = lambda request: pb.CreateContainerResponse(adjust=...)
    plugin.connect()

A handler gets the request and returns the response, None for an empty one, or raises `PluginError`.
It runs in a thread of the plugin.
"""

from __future__ import annotations

import importlib
import os
import queue
import socket
import struct
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

PROTO = Path(__file__).resolve().parents[2] / "proto"
SECONDS = 20.0
_UNKNOWN = 2
_UNIMPLEMENTED = 12
_TTRPC = """syntax = "proto3"; package ttrpc;
message Status { int32 code = 1; string message = 2; }
message Request { string service = 1; string method = 2; bytes payload = 3; int64 timeout_nano = 4; }
message Response { Status status = 1; bytes payload = 2; }
"""


@cache
def messages() -> tuple[ModuleType, ModuleType]:
    """(messages of NRI, messages of ttrpc), made by protoc once per process."""
    from grpc_tools import protoc

    with tempfile.TemporaryDirectory(prefix="nri-stubs-") as directory:
        (Path(directory) / "ttrpc_test.proto").write_text(_TTRPC)
        common = ["protoc", f"-I{PROTO}", f"-I{directory}", f"--python_out={directory}"]
        assert protoc.main([*common, "nri.proto", "ttrpc_test.proto"]) == 0, "protoc failed"
        sys.path.insert(0, directory)
        try:
            return importlib.import_module("nri_pb2"), importlib.import_module("ttrpc_test_pb2")
        finally:
            sys.path.remove(directory)


class PluginError(Exception):
    """What a plugin answers instead of a response."""

    code = _UNKNOWN


class NriPlugin:
    """One plugin. `calls` are the events that it was told of: pairs of (method, request)."""

    def __init__(self, path: Path | int, index: str = "10", name: str = "test", events: int = 0) -> None:
        self.pb, self._ttrpc = messages()
        self.path = path
        self.index, self.name, self.events = index, name, events
        self.on: dict[str, Callable[[Any], Any]] = {}
        self.calls: list[tuple[str, Any]] = []
        self.ready = threading.Event()  # synchronized
        self.closed = threading.Event()
        self._changed = threading.Condition()
        self._answers: queue.Queue[Any] = queue.Queue()
        self._lock = threading.Lock()
        self._next = 1
        self._socket = socket.socket(fileno=path) if isinstance(path, int) else socket.socket(socket.AF_UNIX)

    def __enter__(self) -> NriPlugin:
        self.connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def connect(self, *, wait: bool = True) -> None:
        """Connect, register, and wait until noded has synchronized."""
        if not isinstance(self.path, int):
            self._socket.connect(str(self.path))
        threading.Thread(target=self._read, daemon=True).start()
        self.register()
        if wait:
            assert self.ready.wait(SECONDS), "noded does not synchronize the plugin"

    def register(self) -> None:
        self.call(
            "RegisterPlugin", self.pb.RegisterPluginRequest(plugin_name=self.name, plugin_idx=self.index)
        )

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def send_raw(self, data: bytes) -> None:
        self._socket.sendall(data)

    def call(self, method: str, request: Any) -> bytes:
        """Call noded; raises PluginError with what it answers."""
        with self._lock:
            number, self._next = self._next, self._next + 2
        call = self._ttrpc.Request(
            service="nri.pkg.api.v1alpha1.Runtime", method=method, payload=request.SerializeToString()
        )
        self._send(2, number, 1, call.SerializeToString())
        response = self._answers.get(timeout=SECONDS)
        if response.status.code:
            raise PluginError(f"{response.status.code}: {response.status.message}")
        return bytes(response.payload)

    def update(self, *updates: Any, evict: tuple[Any, ...] = ()) -> list[Any]:
        """Ask for an unsolicited update; return the updates that failed."""
        answer = self.call("UpdateContainers", self.pb.UpdateContainersRequest(update=updates, evict=evict))
        return list(self.pb.UpdateContainersResponse.FromString(answer).failed)

    def told(self, method: str, container: str = "") -> Any:
        """Wait for an event; return its request."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._find(method, container), SECONDS), (
                f"the plugin was not told of {method}, but of {[name for name, _ in self.calls]}"
            )
            return self._find(method, container)

    def _find(self, method: str, container: str) -> Any:
        for name, request in self.calls:
            if name == method and (not container or request.container.id == container):
                return request
        return None

    def methods(self, container: str) -> list[str]:
        """The events that it was told of a container, in order."""
        return [
            name
            for name, request in self.calls
            if hasattr(request, "container") and request.container.id == container
        ]

    # the wire

    def _send(self, connection: int, stream: int, kind: int, data: bytes) -> None:
        frame = struct.pack(">IIBB", len(data), stream, kind, 0) + data
        with self._lock:
            self._socket.sendall(struct.pack(">II", connection, len(frame)) + frame)

    def _take(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self._socket.recv(count - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data

    def _read(self) -> None:
        buffers = {1: b"", 2: b""}
        try:
            while True:
                connection, length = struct.unpack(">II", self._take(8))
                buffers[connection] += self._take(length)
                while len(buffers[connection]) >= 10:
                    size, stream, _, _ = struct.unpack(">IIBB", buffers[connection][:10])
                    if len(buffers[connection]) < 10 + size:
                        break
                    data, buffers[connection] = (
                        buffers[connection][10 : 10 + size],
                        buffers[connection][10 + size :],
                    )
                    if connection == 2:
                        self._answers.put(self._ttrpc.Response.FromString(data))
                    else:
                        threading.Thread(target=self._serve, args=(stream, data), daemon=True).start()
        except (EOFError, OSError):
            self.closed.set()

    def _serve(self, stream: int, data: bytes) -> None:
        call = self._ttrpc.Request.FromString(data)
        response, answer = self._ttrpc.Response(), None
        try:
            answer = self._handle(call.method, call.payload)
            response.payload = b"" if answer is None else answer.SerializeToString()
        except PluginError as error:
            response.status.code, response.status.message = error.code, str(error)
        with suppress(OSError):
            self._send(1, stream, 2, response.SerializeToString())
        if call.method == "Synchronize" and answer is not None and not answer.more:
            self.ready.set()

    def _handle(self, method: str, payload: bytes) -> Any:
        name = "StateChangeEvent" if method == "StateChange" else f"{method}Request"
        request = getattr(self.pb, name).FromString(payload)
        with self._changed:
            self.calls.append((method, request))
            self._changed.notify_all()
        if method in self.on:
            return self.on[method](request)
        if method == "Configure":
            return self.pb.ConfigureResponse(events=self.events)
        if method == "Synchronize":
            return self.pb.SynchronizeResponse(more=request.more)
        return None


class Unimplemented(PluginError):
    """The plugin has no such method."""

    code = _UNIMPLEMENTED


def main() -> None:
    """As an installed plugin: says by the environment of containers how it was started."""
    plugin = NriPlugin(int(os.environ["NRI_PLUGIN_SOCKET"]), "99", "its own idea")
    configured: list[str] = []

    def configure(request: Any) -> Any:
        configured.append(request.config)
        return plugin.pb.ConfigureResponse(events=1 << 3)

    def create(request: Any) -> Any:
        who = f"{os.environ['NRI_PLUGIN_IDX']}-{os.environ['NRI_PLUGIN_NAME']} {configured[0].strip()}"
        env = [plugin.pb.KeyValue(key="INSTALLED", value=who)]
        return plugin.pb.CreateContainerResponse(adjust=plugin.pb.ContainerAdjustment(env=env))

    plugin.on |= {"Configure": configure, "CreateContainer": create}
    plugin.connect(wait=False)
    plugin.closed.wait()


if __name__ == "__main__":
    main()
