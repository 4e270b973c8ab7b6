"""An HTTP proxy in front of a real registry that does wrong what it is told to do wrong.

It answers on a port of its own, passes requests on, and hands the registry's answer to the fault that a
rule names. Each fault writes to the client as it likes; `relay` is the honest one.
"""

from __future__ import annotations

import http.client
import json
import re
import secrets
import socket
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Answer:
    """What the registry said."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def with_header(self, name: str, value: str) -> Answer:
        kept = tuple(pair for pair in self.headers if pair[0].lower() != name.lower())
        return replace(self, headers=(*kept, (name, value)))


Fault = Callable[["Connection", Answer], None]


@dataclass
class Rule:
    pattern: re.Pattern[str]
    fault: Fault
    times: int


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are part of the tests."""


class FaultProxy:
    """`with FaultProxy(registry.host) as proxy:`; HOST:PORT is `proxy.host`.

    Args:
        token_uses: with it, a request needs a bearer token from /token, good for so many requests.
    """

    def __init__(self, upstream: str, *, token_uses: int = 0) -> None:
        self.upstream = upstream
        self.token_uses = token_uses
        self.requests: list[tuple[str, dict[str, str]]] = []  # "METHOD path", headers
        self.tokens: dict[str, int] = {}
        self.ending = threading.Event()
        self._rules: list[Rule] = []
        self._lock = threading.Lock()
        self._server = Server(("127.0.0.1", 0), type("Bound", (Connection,), {"proxy": self}))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self.host = f"127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.ending.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def on(self, pattern: str, fault: Fault, times: int) -> None:
        """Let the next `times` requests whose "METHOD path" matches go wrong."""
        self._rules.append(Rule(re.compile(pattern), fault, times))

    def fault_for(self, line: str) -> Fault:
        with self._lock:
            for rule in self._rules:
                if rule.times > 0 and rule.pattern.search(line):
                    rule.times -= 1
                    return rule.fault
        return relay

    def spend(self, authorization: str) -> bool:
        with self._lock:
            token = authorization.removeprefix("Bearer ")
            self.tokens[token] = left = self.tokens.get(token, 0) - 1
            return left >= 0

    def asked(self, pattern: str) -> list[dict[str, str]]:
        """The headers of all requests that match."""
        return [headers for line, headers in self.requests if re.search(pattern, line)]


class Connection(BaseHTTPRequestHandler):
    proxy: ClassVar[FaultProxy]
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        return

    def do_GET(self) -> None:
        proxy, path = self.proxy, urlsplit(self.path).path
        headers = {name.lower(): value for name, value in self.headers.items()}
        proxy.requests.append((f"{self.command} {path}", headers))
        if path == "/token":
            token = secrets.token_hex(8)
            proxy.tokens[token] = proxy.token_uses
            relay(self, Answer(200, (), json.dumps({"token": token, "expires_in": 3600}).encode()))
        elif proxy.token_uses and not proxy.spend(headers.get("authorization", "")):
            challenge = f'Bearer realm="http://{proxy.host}/token",service="proxy",scope="pull"'
            relay(self, Answer(401, (("WWW-Authenticate", challenge),), b""))
        else:
            proxy.fault_for(f"{self.command} {path}")(self, self._ask_upstream())

    def do_HEAD(self) -> None:
        self.do_GET()

    def _ask_upstream(self) -> Answer:
        upstream = http.client.HTTPConnection(self.proxy.upstream, timeout=30)
        names = ("Accept", "Range", "Authorization")
        kept = {name: self.headers[name] for name in names if name in self.headers}
        upstream.request(self.command, self.path, headers=kept)
        with upstream.getresponse() as answer:
            headers = tuple(
                (name, value)
                for name, value in answer.getheaders()
                if name.lower() not in ("connection", "date", "transfer-encoding")
            )
            result = Answer(answer.status, headers, answer.read())
        upstream.close()
        return result

    def head(self, answer: Answer) -> None:
        self.send_response(answer.status)
        names = {name.lower() for name, _ in answer.headers}
        for name, value in answer.headers:
            self.send_header(name, value)
        if not names & {"content-length", "transfer-encoding"}:
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()

    def hang_up(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)


def relay(connection: Connection, answer: Answer) -> None:
    connection.head(answer)
    if connection.command != "HEAD":
        connection.wfile.write(answer.body)


def say(status: int, text: str = "", **headers: str) -> Fault:
    """Another answer than the registry's."""

    def fault(connection: Connection, answer: Answer) -> None:
        body = json.dumps({"errors": [{"code": "FAULT", "message": text}]}).encode() if text else b""
        named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
        relay(connection, Answer(status, named, body))

    return fault


def hang_up(connection: Connection, answer: Answer) -> None:
    connection.hang_up()


def drop(after: int) -> Fault:
    """The right headers, `after` bytes of the body, and no more."""

    def fault(connection: Connection, answer: Answer) -> None:
        connection.head(answer)
        connection.wfile.write(answer.body[:after])
        connection.hang_up()

    return fault


def stall(after: int = -1) -> Fault:
    """Nothing, or headers and `after` bytes; then the connection stays open and silent."""

    def fault(connection: Connection, answer: Answer) -> None:
        if after >= 0:
            connection.head(answer)
            connection.wfile.write(answer.body[:after])
        connection.proxy.ending.wait(60)
        connection.close_connection = True

    return fault


def drip(pieces: Iterable[bytes], pause_seconds: float) -> Callable[[Connection], None]:
    def send(connection: Connection) -> None:
        for piece in pieces:
            connection.wfile.write(piece)
            if connection.proxy.ending.wait(pause_seconds):
                return

    return send


def slow_headers(connection: Connection, answer: Answer) -> None:
    """An endless header, a byte at a time, never silent for as long as the stall timeout."""
    connection.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    drip((b"x" for _ in range(1000)), 0.05)(connection)
    connection.close_connection = True


def slow_body(connection: Connection, answer: Answer) -> None:
    """Slower than one likes, but never silent."""
    connection.head(answer)
    step = len(answer.body) // 8 + 1
    drip((answer.body[at : at + step] for at in range(0, len(answer.body), step)), 0.15)(connection)


def drop_in_headers(connection: Connection, answer: Answer) -> None:
    connection.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.oci.ima")
    connection.hang_up()


def without_ranges(connection: Connection, answer: Answer) -> None:
    """All of it, whatever part was asked for, from a server that never heard of Range."""
    if "Range" in connection.headers:
        del connection.headers["Range"]
        answer = connection._ask_upstream()
    relay(connection, answer)


def another_range(connection: Connection, answer: Answer) -> None:
    """206 with a part that nobody asked for."""
    relay(connection, answer.with_header("Content-Range", f"bytes 900000-{900000 + len(answer.body)}/*"))


def flipped(connection: Connection, answer: Answer) -> None:
    """One wrong bit, of the right length."""
    body = bytearray(answer.body)
    if body:
        body[len(body) // 2] ^= 1
    relay(connection, replace(answer, body=bytes(body)))


def resized(difference: int) -> Fault:
    """More or fewer bytes than the manifest says, in a well-formed answer."""

    def fault(connection: Connection, answer: Answer) -> None:
        body = answer.body + bytes(difference) if difference > 0 else answer.body[:difference]
        relay(connection, replace(answer, body=body).with_header("Content-Length", str(len(body))))

    return fault


def chunked(difference: int) -> Fault:
    """As `resized`, but no header tells the length."""

    def fault(connection: Connection, answer: Answer) -> None:
        body = answer.body + bytes(difference) if difference >= 0 else answer.body[:difference]
        kept = tuple(pair for pair in answer.headers if pair[0].lower() != "content-length")
        connection.head(replace(answer, headers=(*kept, ("Transfer-Encoding", "chunked"))))
        for at in range(0, len(body), 100_000):
            piece = body[at : at + 100_000]
            connection.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        connection.wfile.write(b"0\r\n\r\n")

    return fault


def redirect(target: str) -> Fault:
    """To `target`, in which {path}, {proxy} and {upstream} are filled in."""

    def fault(connection: Connection, answer: Answer) -> None:
        proxy = connection.proxy
        to = target.format(path=connection.path, proxy=proxy.host, upstream=proxy.upstream)
        relay(connection, Answer(307, (("Location", to),), b""))

    return fault


def no_http(connection: Connection, answer: Answer) -> None:
    connection.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")
    connection.hang_up()


def many_headers(connection: Connection, answer: Answer) -> None:
    headers = tuple((f"X-{number}", "y") for number in range(500))
    relay(connection, replace(answer, headers=(*answer.headers, *headers)))
