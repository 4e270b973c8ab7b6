"""What of an API server and a kubelet `kubectl exec`, `attach`, `cp` and `port-forward` need.

It answers discovery and GET of a pod; it sends a request for a stream to the URL that the CRI gave
for it and then passes bytes in both directions, as API server and kubelet do, without reading them.
"""

from __future__ import annotations

import json
import socket
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

import grpc

from tests.support.cri_client import Cri

_VERSION = {"major": "1", "minor": "32", "gitVersion": "v1.32.0"}
_PODS = [
    {"name": name, "singularName": "", "namespaced": True, "kind": kind, "verbs": verbs}
    for name, kind, verbs in (
        ("pods", "Pod", ["get", "list"]),
        ("pods/exec", "PodExecOptions", ["create", "get"]),
        ("pods/attach", "PodAttachOptions", ["create", "get"]),
        ("pods/portforward", "PodPortForwardOptions", ["create", "get"]),
    )
]
_DISCOVERY = {
    "/version": _VERSION,
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
    "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": _PODS},
}
_PREFIX = "/api/v1/namespaces/default/pods/"


class ApiServer:
    """A running server; use it as a context manager. `add` makes a pod known to it."""

    def __init__(self, cri: Cri) -> None:
        self.cri = cri
        self.pods: dict[str, tuple[str, str, bool]] = {}
        handler = type("Handler", (_Handler,), {"api": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> ApiServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def add(self, name: str, sandbox: str, container: str, *, stdin: bool = False) -> None:
        """Name a pod with one container, `main`."""
        self.pods[name] = sandbox, container, stdin

    def pod(self, name: str) -> dict[str, Any]:
        sandbox, container, stdin = self.pods[name]
        main = {"name": "main", "image": "any", "stdin": stdin, "ports": [{"containerPort": 80}]}
        status = {"name": "main", "containerID": f"noded://{container}", "state": {"running": {}}}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "uid": sandbox},
            "spec": {"containers": [main], "nodeName": "node"},
            "status": {"phase": "Running", "containerStatuses": [status]},
        }

    def stream_url(self, name: str, kind: str, query: dict[str, list[str]]) -> str:
        """Ask the runtime for a URL, as kubelet does."""
        pb, runtime = self.cri.pb, self.cri.runtime
        sandbox, container, _ = self.pods[name]
        flags = {
            key: query.get(key, ["false"])[0] in ("true", "1") for key in ("stdin", "stdout", "stderr", "tty")
        }
        if kind == "exec":
            request = pb.ExecRequest(container_id=container, cmd=query["command"], **flags)
            return str(runtime.Exec(request, timeout=20).url)
        if kind == "attach":
            return str(runtime.Attach(pb.AttachRequest(container_id=container, **flags), timeout=20).url)
        ports = [int(port) for port in query.get("ports", [])]
        return str(
            runtime.PortForward(pb.PortForwardRequest(pod_sandbox_id=sandbox, port=ports), timeout=20).url
        )


class _Handler(BaseHTTPRequestHandler):
    api: ApiServer
    protocol_version = "HTTP/1.1"
    rbufsize = 0  # bytes after the head belong to the stream

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if parts.path in _DISCOVERY:
            return self._answer(200, _DISCOVERY[parts.path])
        name, _, kind = parts.path.removeprefix(_PREFIX).partition("/")
        if not parts.path.startswith(_PREFIX) or name not in self.api.pods:
            return self._answer(
                404, {"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404}
            )
        if not kind:
            return self._answer(200, self.api.pod(name))
        try:
            return self._proxy(self.api.stream_url(name, kind, parse_qs(parts.query)))
        except grpc.RpcError as error:
            status = {"kind": "Status", "status": "Failure", "message": error.details(), "code": 500}
            return self._answer(500, status)

    do_POST = do_GET  # noqa: N815 - named by the standard library

    def _answer(self, code: int, value: dict[str, Any]) -> None:
        body = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _proxy(self, url: str) -> None:
        target = urlsplit(url)
        self.close_connection = True
        with socket.create_connection((target.hostname, target.port), timeout=20) as runtime:
            runtime.settimeout(None)
            headers = "".join(f"{key}: {value}\r\n" for key, value in self.headers.items())
            runtime.sendall(f"{self.command} {target.path} HTTP/1.1\r\n{headers}\r\n".encode())
            back = threading.Thread(target=_copy, args=(runtime, self.connection), daemon=True)
            back.start()
            _copy(self.connection, runtime)
            back.join()

    def log_message(self, *_: Any) -> None:
        pass


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 18):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
