"""A small HTTP registry in this process that misbehaves on request."""

from __future__ import annotations

import base64
import json
import re
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import trio

from tests.support.images import Image, sha256

Fault = Callable[["Handler"], bool]  # True: it has answered


@dataclass(frozen=True)
class Request:
    """One request as it arrived."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass
class Rule:
    pattern: re.Pattern[str]
    fault: Fault
    times: int


@dataclass
class Content:
    """What a registry has, and how it wants to be asked."""

    manifests: dict[str, tuple[bytes, str]] = field(default_factory=dict)  # "repo/reference" -> body, type
    blobs: dict[str, bytes] = field(default_factory=dict)
    auth: str = ""  # "", basic, bearer
    login: tuple[str, str] = ("", "")
    realm: str = ""
    tokens: set[str] = field(default_factory=set)
    refresh_tokens: set[str] = field(default_factory=set)
    anonymous: bool = False  # the token endpoint serves anybody
    expires_in: int = 300
    with_digest_header: bool = True
    ranges: bool = True


class Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are part of the tests."""


class FakeRegistry:
    """`with FakeRegistry() as registry:` on a free port of 127.0.0.1, plain HTTP."""

    def __init__(self) -> None:
        self.content = Content()
        self.requests: list[Request] = []
        self.stopping = threading.Event()
        self.stalled = threading.Event()  # a `stall` has begun
        self._rules: list[Rule] = []
        self._lock = threading.Lock()
        handler = type("BoundHandler", (Handler,), {"registry": self})
        self._server = Server(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self.host = f"127.0.0.1:{self._server.server_port}"
        self.content.realm = f"http://{self.host}/token"

    def __enter__(self) -> FakeRegistry:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def use_tls(self, certificate: Path) -> None:
        """Call before the server starts. Each connection shakes hands in its own thread."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )

    def push(self, image: Image, repository: str, *tags: str) -> None:
        self.content.blobs.update(image.blobs)
        for reference in (image.digest, *tags):
            self.content.manifests[f"{repository}/{reference}"] = (image.manifest, image.media_type)

    def push_index(self, index: bytes, repository: str, *tags: str) -> str:
        kind = json.loads(index)["mediaType"]
        for reference in (sha256(index), *tags):
            self.content.manifests[f"{repository}/{reference}"] = (index, kind)
        return sha256(index)

    def on(self, pattern: str, fault: Fault, times: int = 1) -> None:
        """Let requests whose "METHOD path" matches go wrong, `times` times."""
        with self._lock:
            self._rules.append(Rule(re.compile(pattern), fault, times))

    def fault_for(self, line: str) -> Fault | None:
        with self._lock:
            for rule in self._rules:
                if rule.times > 0 and rule.pattern.search(line):
                    rule.times -= 1
                    return rule.fault
        return None

    async def until_stalled(self) -> None:
        assert await trio.to_thread.run_sync(self.stalled.wait, 10)

    def count(self, pattern: str) -> int:
        return sum(1 for one in self.requests if re.search(pattern, f"{one.method} {one.path}"))

    def authorizations(self) -> list[str]:
        return [one.headers.get("authorization", "") for one in self.requests]


class Handler(BaseHTTPRequestHandler):
    registry: ClassVar[FakeRegistry]
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        return

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_CONNECT(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def error(self, status: int, code: str, message: str = "", **headers: str) -> None:
        body = json.dumps({"errors": [{"code": code, "message": message or code.lower()}]}).encode()
        self.reply(status, body, **headers)

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {key.lower(): value for key, value in self.headers.items()}
        request = Request(self.command, parts.path, parse_qs(parts.query), headers, body)
        self.registry.requests.append(request)
        fault = self.registry.fault_for(f"{self.command} {parts.path}")
        if fault is not None and fault(self):
            return
        if parts.path == "/token":
            self._token(request)
        elif self._allowed():
            self.serve(parts.path)

    def _allowed(self) -> bool:
        content, header = self.registry.content, self.headers.get("Authorization", "")
        if content.auth == "basic":
            if header == f"Basic {base64.b64encode(':'.join(content.login).encode()).decode()}":
                return True
            self.error(401, "UNAUTHORIZED", WWW_Authenticate='Basic realm="fake"')
            return False
        if content.auth == "bearer":
            if header.removeprefix("Bearer ") in content.tokens:
                return True
            repository = re.sub(r"^/v2/|/(manifests|blobs)/.*$", "", self.path)
            challenge = f'Bearer realm="{content.realm}",service="fake",scope="repository:{repository}:pull"'
            self.error(401, "UNAUTHORIZED", WWW_Authenticate=challenge)
            return False
        return True

    def _token(self, request: Request) -> None:
        content = self.registry.content
        token = f"token-{len(content.tokens)}"
        if request.method == "POST":
            form = parse_qs(request.body.decode())
            good = form.get("refresh_token", [""])[0] in content.refresh_tokens
            good = good and form.get("grant_type") == ["refresh_token"]
            answer = {"access_token": token, "expires_in": content.expires_in}
        else:
            pair = base64.b64encode(":".join(content.login).encode()).decode()
            header = request.headers.get("authorization", "")
            good = header == f"Basic {pair}" or (content.anonymous and not header)
            answer = {"token": token, "expires_in": content.expires_in}
        if not good:
            self.error(401, "UNAUTHORIZED", "wrong user name or password")
            return
        content.tokens.add(token)
        self.reply(200, json.dumps(answer).encode(), Content_Type="application/json")

    def serve(self, path: str) -> None:
        """Answer as a good registry."""
        content = self.registry.content
        match = re.match(r"/v2/(.+)/(manifests|blobs)/([^/]+)$", path)
        if match is None:
            self.error(404, "NAME_UNKNOWN")
            return
        repository, kind, reference = match.groups()
        if kind == "manifests":
            found = content.manifests.get(f"{repository}/{reference}")
            if found is None:
                self.error(404, "MANIFEST_UNKNOWN", "manifest unknown")
                return
            headers = {"Docker_Content_Digest": sha256(found[0])} if content.with_digest_header else {}
            self.reply(200, found[0], Content_Type=found[1], **headers)
            return
        blob = content.blobs.get(reference)
        if blob is None:
            self.error(404, "BLOB_UNKNOWN", "blob unknown")
            return
        self.serve_blob(blob)

    def serve_blob(self, blob: bytes) -> None:
        wanted = re.match(r"bytes=(\d+)-$", self.headers.get("Range", ""))
        if wanted is None or not self.registry.content.ranges:
            self.reply(200, blob)
            return
        start = int(wanted[1])
        if start >= len(blob):
            self.reply(416, Content_Range=f"bytes */{len(blob)}")
            return
        self.reply(206, blob[start:], Content_Range=f"bytes {start}-{len(blob) - 1}/{len(blob)}")

    def blob(self) -> bytes:
        return self.registry.content.blobs[self.path.rpartition("/")[2]]

    def start(self) -> int:
        return int((re.match(r"bytes=(\d+)-", self.headers.get("Range", "")) or ["", "0"])[1])


def drop_after(length: int) -> Fault:
    """Promise the whole blob (or the rest asked for), send `length` bytes, close the connection."""

    def fault(handler: Handler) -> bool:
        blob, start = handler.blob(), handler.start()
        ranged = {"Content_Range": f"bytes {start}-{len(blob) - 1}/{len(blob)}"} if start else {}
        rest = blob[start:]
        handler.reply(206 if start else 200, rest[:length], Content_Length=str(len(rest)), **ranged)
        handler.close_connection = True
        return True

    return fault


def status(code: int, **headers: str) -> Fault:
    def fault(handler: Handler) -> bool:
        handler.error(code, "FAULT", f"fault {code}", **headers)
        return True

    return fault


def send(body: bytes, **headers: str) -> Fault:
    """Answer 200 with this body instead of the right one."""

    def fault(handler: Handler) -> bool:
        handler.reply(200, body, **headers)
        return True

    return fault


def redirect(target: str) -> Fault:
    """Send the client to `target`, in which {path} is the path asked for."""

    def fault(handler: Handler) -> bool:
        handler.reply(307, Location=target.format(path=handler.path))
        return True

    return fault


def stall(after: int = -1) -> Fault:
    """Send nothing, or the headers and `after` bytes of the blob, then nothing until the end of the test."""

    def fault(handler: Handler) -> bool:
        if after >= 0:
            blob = handler.blob()
            handler.reply(200, blob[:after], Content_Length=str(len(blob)))
            handler.wfile.flush()
        handler.registry.stalled.set()
        handler.registry.stopping.wait(60)
        handler.close_connection = True
        return True

    return fault


def hang_up(handler: Handler) -> bool:
    handler.close_connection = True
    return True
