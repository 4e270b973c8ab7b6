"""A registry in this process that holds back the second half of each layer until it is told to go on."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

from tests.support.images import Image


class SlowRegistry:
    """Serves one image under any name, plain HTTP; use it as a context manager."""

    def __init__(self, image: Image) -> None:
        self.image = image
        self.go_on = threading.Event()
        handler = type("BoundHandler", (_Handler,), {"registry": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.host = f"127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> SlowRegistry:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    registry: SlowRegistry

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        image, reference = self.registry.image, self.path.rpartition("/")[2]
        if "/manifests/" in self.path:
            body, kind = image.manifest, image.media_type
        else:
            body, kind = image.blobs[reference], "application/octet-stream"
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        half = len(body) // 2
        self.wfile.write(body[:half])
        if reference in image.layer_digests:
            self.registry.go_on.wait(60)
        self.wfile.write(body[half:])
