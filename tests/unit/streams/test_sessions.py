"""Sessions over a real loopback connection, with a core that is a few pipes and sockets."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import select
import socket
from contextlib import asynccontextmanager, suppress

import pytest
from spdy_peer import Peer
from websocket_peer import frame, parse

from noded.config import StreamingConfig
from noded.edge.streaming import StreamingServer
from noded.errors import FailedPrecondition, InvalidArgument, ResourceExhausted, Unavailable
from noded.streams.requests import CommandRequest, ForwardRequest

ALL = CommandRequest("c1", ("cmd",), stdin=True, stdout=True, stderr=True)
TTY = CommandRequest("c1", ("cmd",), tty=True, stdin=True, stdout=True)
STREAMS = ("error", "stdin", "stdout", "stderr")


class Bridge:
    """Calls run in the asyncio loop."""

    async def call(self, function, *args, deadline_seconds=None, detach=False):
        return await function(*args)


class Command:
    """An ExecStream: what a command would do is done by the test, at the other ends of the pipes."""

    terminal = -1

    def __init__(self):
        self.their_stdin, self.stdin = os.pipe()
        self.stdout, self.their_stdout = os.pipe()
        self.stderr, self.their_stderr = os.pipe()
        for fd in (self.stdin, self.stdout, self.stderr):
            os.set_blocking(fd, False)
        self.code = asyncio.get_running_loop().create_future()
        self.sizes = []
        self.closed = asyncio.Event()

    def close_stdin(self):
        if self.stdin >= 0:
            os.close(self.stdin)
        self.stdin = -1

    def close(self):
        self.close_stdin()
        for fd in (self.stdout, self.stderr):
            if fd >= 0:
                os.close(fd)
        self.stdout = self.stderr = -1
        self.closed.set()

    async def resize(self, width, height):
        self.sizes.append((width, height))

    async def wait(self):
        return await asyncio.shield(self.code)

    def exit(self, code):
        """The command writes no more and ends."""
        for name in ("their_stdin", "their_stdout", "their_stderr"):
            if getattr(self, name) >= 0:
                os.close(getattr(self, name))
            setattr(self, name, -1)
        if not self.code.done():
            self.code.set_result(code)

    async def read_stdin(self):
        return await asyncio.to_thread(os.read, self.their_stdin, 65536)


class Core:
    def __init__(self):
        self.commands = []
        self.failure = None
        self.half_closes = True
        self.started = asyncio.Event()
        self.pods = []

    async def exec(self, name, command, terminal, stdin, adopt):
        if self.failure is not None:
            raise self.failure
        self.commands.append(Command())
        adopt(self.commands[-1])
        self.started.set()

    async def attach(self, name, adopt):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        theirs.setblocking(False)
        self.pods.append(theirs)
        adopt(ours)
        self.started.set()

    async def resize(self, name, width, height):
        self.pods.append((width, height))

    async def connect(self, sandbox_id, port, adopt):
        if self.failure is not None:
            raise self.failure
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self.pods.append(theirs)
        adopt(ours)
        self.started.set()
        return self.half_closes

    async def commands_closed(self):
        await self.started.wait()
        for command in self.commands:
            await command.closed.wait()

    def close(self):
        for command in self.commands:
            command.exit(0)
        for pod in self.pods:
            if isinstance(pod, socket.socket):
                pod.close()


@asynccontextmanager
async def serving(**options):
    core = Core()
    server = StreamingServer(StreamingConfig(**options), Bridge())
    server.bind()
    server.start(core)
    before = set(os.listdir("/proc/self/fd"))
    try:
        yield server, core
        core.close()
        for _ in range(100):
            if set(os.listdir("/proc/self/fd")) <= before:
                break
            await asyncio.sleep(0.02)
        assert set(os.listdir("/proc/self/fd")) <= before, "descriptors are left open"
    finally:
        await server.close()


class Client:
    """A SPDY client."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.peer = Peer()
        self.data, self.ended, self.frames = {}, set(), []

    @classmethod
    async def connect(cls, url, headers, method="POST"):
        host, _, path = url.removeprefix("http://").partition("/")
        reader, writer = await asyncio.open_connection(*host.rsplit(":", 1), limit=1 << 20)
        lines = [f"{method} /{path} HTTP/1.1", "Host: x", "Connection: Upgrade", *headers, "", ""]
        writer.write("\r\n".join(lines).encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        return cls(reader, writer), head

    def send(self, *parts):
        self.writer.write(b"".join(parts))

    async def until(self, condition):
        async with asyncio.timeout(10):
            while not condition(self):
                data = await self.reader.read(65536)
                assert data, f"the server closed: {self.frames}"
                for item in self.peer.receive(data):
                    self.frames.append(item)
                    if item[0] == "data":
                        self.data[item[1]] = self.data.get(item[1], b"") + item[2]
                        if item[3]:
                            self.ended.add(item[1])

    async def close(self):
        self.writer.close()


async def until(condition):
    """Let the loop turn until the server's side has got there."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come about")


def hung_up(sock):
    poll = select.poll()
    poll.register(sock, 0)
    return any(mask & select.POLLHUP for _, mask in poll.poll(0))


async def spdy(url, *protocols):
    headers = ["Upgrade: SPDY/3.1", *(f"X-Stream-Protocol-Version: {name}" for name in protocols)]
    client, head = await Client.connect(url, headers)
    assert head.startswith("HTTP/1.1 101 "), head
    return client, head


def open_all(client, names=STREAMS):
    for index, name in enumerate(names):
        client.send(client.peer.open(2 * index + 1, {"streamtype": name}))


def run(main):
    asyncio.run(asyncio.wait_for(main(), 30))


def test_an_exec_over_spdy_carries_everything():
    async def main():
        async with serving() as (server, core):
            client, head = await spdy(server.exec_url(ALL), "v9", "v4.channel.k8s.io", "v3.channel.k8s.io")
            assert "X-Stream-Protocol-Version: v4.channel.k8s.io" in head
            open_all(client)
            client.send(client.peer.data(3, b"input"), client.peer.data(3, b"", fin=True))
            await core.started.wait()
            command = core.commands[0]
            assert await command.read_stdin() == b"input"
            assert await command.read_stdin() == b""
            os.write(command.their_stdout, b"out")
            os.write(command.their_stderr, b"err")
            command.exit(7)
            await client.until(lambda it: it.ended >= {1, 5, 7})
            assert (client.data[5], client.data[7]) == (b"out", b"err")
            status = json.loads(client.data[1])
            assert status["details"]["causes"][0]["message"] == "7"
            await client.close()
            await command.closed.wait()

    run(main)


def test_old_protocols_get_plain_text_errors():
    async def main():
        async with serving() as (server, core):
            client, head = await spdy(server.exec_url(ALL))
            assert "X-Stream-Protocol-Version: channel.k8s.io" in head
            core.failure = FailedPrecondition("no such program")
            open_all(client)
            await client.until(lambda it: 1 in it.ended)
            assert client.data[1] == b"no such program"
            await client.close()

    run(main)


def test_a_client_that_vanishes_closes_the_commands_streams():
    async def main():
        async with serving() as (server, core):
            client, _ = await spdy(server.exec_url(ALL), "v4.channel.k8s.io")
            open_all(client)
            await core.started.wait()
            client.writer.transport.abort()
            command = core.commands[0]
            await command.closed.wait()
            assert await command.read_stdin() == b""

    run(main)


def test_a_client_that_vanishes_while_input_is_stuck_is_noticed():
    async def main():
        async with serving() as (server, core):
            client, _ = await spdy(server.exec_url(ALL), "v4.channel.k8s.io")
            open_all(client)
            await core.started.wait()
            for _ in range(20):  # nobody reads the input
                client.send(client.peer.data(3, bytes(60000)))
            for _ in range(5):
                await asyncio.sleep(0.02)
            client.writer.transport.abort()
            await core.commands[0].closed.wait()

    run(main)


def test_output_of_children_that_outlive_the_command_is_not_waited_for():
    async def main():
        async with serving() as (server, core):
            client, _ = await spdy(server.exec_url(ALL), "v4.channel.k8s.io")
            open_all(client)
            await core.started.wait()
            command = core.commands[0]
            os.write(command.their_stdout, b"last words")
            command.code.set_result(0)  # the pipes stay open
            await client.until(lambda it: it.ended >= {1, 5, 7})
            assert client.data[5] == b"last words"
            await client.close()

    run(main)


def test_a_client_that_reads_slowly_holds_the_output_back():
    async def main():
        async with serving() as (server, core):
            client, _ = await spdy(server.exec_url(ALL), "v4.channel.k8s.io")
            client.send(client.peer.settings(1000))
            open_all(client)
            await core.started.wait()
            command = core.commands[0]
            os.set_blocking(command.their_stdout, False)
            written = 0
            with suppress(BlockingIOError):
                while written < 1 << 24:
                    written += os.write(command.their_stdout, bytes(4096))
                    await asyncio.sleep(0)
            assert written < 1 << 20
            await client.until(lambda it: len(it.data.get(5, b"")) == 1000)
            client.send(client.peer.window_update(5, 500))
            await client.until(lambda it: len(it.data[5]) == 1500)
            await client.close()

    run(main)


def test_streams_that_never_come_end_the_session(monkeypatch):
    async def main():
        monkeypatch.setattr("noded.streams.channels.CREATION_SECONDS", 0.1)
        async with serving() as (server, core):
            client, _ = await spdy(server.exec_url(ALL), "v4.channel.k8s.io")
            open_all(client, ("error", "stdin"))
            await client.until(lambda it: 1 in it.ended)
            assert b"did not open" in client.data[1]
            await client.close()
            client, _ = await spdy(server.exec_url(ALL), "v4.channel.k8s.io")
            assert await client.reader.read() == b""
            assert not core.commands
            await client.close()

    run(main)


def test_unknown_and_repeated_streams_are_refused():
    async def main():
        async with serving() as (server, core):
            client, _ = await spdy(server.exec_url(TTY), "v4.channel.k8s.io")
            open_all(client, ("error", "stdin", "stdin", "stderr", "nonsense", "stdout", "resize"))
            await core.started.wait()
            client.send(client.peer.data(13, b'{"Width":80,"Height":24}\n{"Width":90,"Height":30}\n'))
            await client.until(lambda it: sum(item[0] == 3 for item in it.frames) == 3)
            await until(lambda: core.commands[0].sizes)
            assert core.commands[0].sizes == [(90, 30)]
            await client.close()

    run(main)


@pytest.mark.parametrize("protocol", ["v5.channel.k8s.io", "v4.channel.k8s.io", "v4.base64.channel.k8s.io"])
def test_an_exec_over_websocket_carries_everything(protocol):
    async def main():
        async with serving() as (server, core):
            client, head = await websocket(server.exec_url(ALL), protocol)
            assert f"Sec-WebSocket-Protocol: {protocol}" in head
            text = "base64" in protocol
            client.send(frame(1 if text else 2, b"0" + base64.b64encode(b"in") if text else b"\x00in"))
            await core.started.wait()
            command = core.commands[0]
            assert await command.read_stdin() == b"in"
            if protocol.startswith("v5"):
                client.send(frame(2, b"\xff\x00"))
                assert await command.read_stdin() == b""
            os.write(command.their_stderr, b"err")
            command.exit(3)
            received = b""
            while not received or parse_all(received)[-1][0] != 8:
                received += await client.reader.read(65536)
            messages = {}
            for opcode, payload in parse_all(received):
                if opcode == 8:
                    break
                channel = payload[0] - (48 if text else 0)
                data = base64.b64decode(payload[1:]) if text else payload[1:]
                messages[channel] = messages.get(channel, b"") + data
            assert messages[2] == b"err"
            assert json.loads(messages[3])["details"]["causes"][0]["message"] == "3"
            await client.close()

    run(main)


def parse_all(data):
    try:
        return parse(data)
    except IndexError:
        return [(0, b"")]


async def websocket(url, protocol):
    headers = [
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        f"Sec-WebSocket-Protocol: {protocol}",
    ]
    client, head = await Client.connect(url, headers, "GET")
    assert head.startswith("HTTP/1.1 101 "), head
    assert "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
    return client, head


def test_an_attach_carries_packets_until_the_container_ends():
    async def main():
        async with serving() as (server, core):
            request = CommandRequest("c1", stdin=True, stdout=True, stderr=True)
            client, _ = await spdy(server.attach_url(request), "v4.channel.k8s.io")
            open_all(client)
            await core.started.wait()
            loop, pod = asyncio.get_running_loop(), core.pods[0]
            await loop.sock_sendall(pod, b"\x02out")
            await loop.sock_sendall(pod, b"\x03err")
            client.send(client.peer.data(3, b"typed"))
            assert await loop.sock_recv(pod, 100) == b"typed"
            client.send(client.peer.data(3, b"", fin=True))
            assert await loop.sock_recv(pod, 100) == b""
            pod.close()
            await client.until(lambda it: it.ended >= {1, 5, 7})
            assert (client.data[5], client.data[7]) == (b"out", b"err")
            assert json.loads(client.data[1])["status"] == "Success"
            await client.close()

    run(main)


@pytest.mark.parametrize("with_ids", [True, False])
def test_ports_are_forwarded_in_pairs_of_streams(with_ids):
    async def main():
        async with serving() as (server, core):
            client, _ = await spdy(server.port_forward_url(ForwardRequest("p1")), "portforward.k8s.io")
            for first in (1, 5):
                extra = {"port": "80", **({"requestid": str(first)} if with_ids else {})}
                client.send(client.peer.open(first, {"streamtype": "error", **extra}, fin=True))
                client.send(client.peer.open(first + 2, {"streamtype": "data", **extra}))
            await until(lambda: len(core.pods) == 2)
            loop = asyncio.get_running_loop()
            for pod, stream in zip(core.pods, (3, 7), strict=True):
                client.send(client.peer.data(stream, b"request", fin=True))
                assert await loop.sock_recv(pod, 100) == b"request"
                assert await loop.sock_recv(pod, 100) == b""
                await loop.sock_sendall(pod, b"answer")
                pod.close()
            await client.until(lambda it: it.ended >= {1, 3, 5, 7})
            assert (client.data[3], client.data[7]) == (b"answer", b"answer")
            await client.close()

    run(main)


def test_a_port_that_nobody_serves_is_reported_on_its_error_stream():
    async def main():
        async with serving() as (server, core):
            core.failure = FailedPrecondition("nobody listens on 80")
            client, _ = await spdy(server.port_forward_url(ForwardRequest("p1")), "portforward.k8s.io")
            for stream, kind in ((1, "error"), (3, "data")):
                client.send(client.peer.open(stream, {"streamtype": kind, "port": "80", "requestid": "0"}))
            await client.until(lambda it: it.ended >= {1, 3})
            assert client.data[1] == b"nobody listens on 80"
            await client.close()

    run(main)


def test_a_reset_data_stream_closes_the_connection_into_the_pod():
    async def main():
        async with serving() as (server, core):
            client, _ = await spdy(server.port_forward_url(ForwardRequest("p1")), "portforward.k8s.io")
            for stream, kind in ((1, "error"), (3, "data")):
                client.send(client.peer.open(stream, {"streamtype": kind, "port": "80", "requestid": "0"}))
            await core.started.wait()
            client.send(client.peer.data(3, b"", fin=True), client.peer.reset(3))
            assert await asyncio.get_running_loop().sock_recv(core.pods[0], 10) == b""
            await until(lambda: hung_up(core.pods[0]))
            await client.close()

    run(main)


@asynccontextmanager
async def forwarded_without_half_close(monkeypatch, silent_seconds):
    """A connection whose sides end together; the pod's end of it, once the client has ended its own."""
    monkeypatch.setattr("noded.streams.forward._SILENT_SECONDS", silent_seconds)
    async with serving() as (server, core):
        core.half_closes = False
        client, _ = await spdy(server.port_forward_url(ForwardRequest("p1")), "portforward.k8s.io")
        for stream, kind in ((1, "error"), (3, "data")):
            client.send(client.peer.open(stream, {"streamtype": kind, "port": "80", "requestid": "0"}))
        await core.started.wait()
        client.send(client.peer.data(3, b"request", fin=True))
        assert await asyncio.get_running_loop().sock_recv(core.pods[0], 10) == b"request"
        yield client, core.pods[0]
        await client.close()


def test_where_sides_end_together_the_end_of_the_client_waits_for_the_answer(monkeypatch):
    async def main():
        loop = asyncio.get_running_loop()
        async with forwarded_without_half_close(monkeypatch, 3600) as (client, pod):
            await loop.sock_sendall(pod, b"first, ")
            await client.until(lambda it: it.data.get(3) == b"first, ")
            with pytest.raises(BlockingIOError):
                pod.recv(1)  # it was not told of the end
            await loop.sock_sendall(pod, b"second")
            pod.close()
            await client.until(lambda it: it.ended >= {1, 3})
            assert client.data[3] == b"first, second"

    run(main)


def test_where_sides_end_together_a_silent_pod_is_told_of_the_end(monkeypatch):
    async def main():
        async with forwarded_without_half_close(monkeypatch, 0.01) as (client, pod):
            assert await asyncio.get_running_loop().sock_recv(pod, 10) == b""
            pod.close()
            await client.until(lambda it: it.ended >= {1, 3})

    run(main)


def test_spdy_is_tunnelled_through_websocket():
    async def main():
        async with serving() as (server, core):
            url = server.port_forward_url(ForwardRequest("p1"))
            client, _ = await websocket(url, "SPDY/3.1+portforward.k8s.io")
            peer = Peer()
            frames = b"".join(
                peer.open(stream, {"streamtype": kind, "port": "80", "requestid": "0"})
                for stream, kind in ((1, "error"), (3, "data"))
            )
            client.send(frame(2, frames[:9]), frame(2, frames[9:] + peer.data(3, b"ping")))
            await core.started.wait()
            loop = asyncio.get_running_loop()
            assert await loop.sock_recv(core.pods[0], 10) == b"ping"
            await loop.sock_sendall(core.pods[0], b"pong")
            received = b""
            while b"pong" not in received:
                received += await client.reader.read(65536)
            await client.close()

    run(main)


def test_websocket_channels_forward_the_ports_of_the_request():
    async def main():
        async with serving() as (server, core):
            url = server.port_forward_url(ForwardRequest("p1", (80, 443)))
            client, _ = await websocket(url, "v4.channel.k8s.io")
            await until(lambda: len(core.pods) == 2)
            client.send(frame(2, b"\x02ping"))
            assert await asyncio.get_running_loop().sock_recv(core.pods[1], 10) == b"ping"
            received = b""
            while len(parse_all(received)) < 4:
                received += await client.reader.read(65536)
            assert sorted(payload for _, payload in parse(received)) == [
                b"\x00P\x00",
                b"\x01P\x00",
                b"\x02\xbb\x01",
                b"\x03\xbb\x01",
            ]
            await client.close()

    run(main)


# what is refused


async def answer(url, *headers, method="POST"):
    client, head = await Client.connect(url, headers, method)
    await client.close()
    return head


def test_tokens_are_refused_when_used_guessed_or_for_something_else():
    async def main():
        async with serving() as (server, _):
            url = server.exec_url(ALL)
            upgrade = ("Upgrade: SPDY/3.1", "X-Stream-Protocol-Version: v4.channel.k8s.io")
            assert " 404 " in await answer(url.replace("/exec/", "/attach/"), *upgrade)
            assert " 404 " in await answer(url[:-1], *upgrade)
            assert " 101 " in await answer(url, *upgrade)
            assert " 404 " in await answer(url, *upgrade)
            assert " 404 " in await answer(url.rpartition("/exec/")[0] + "/", *upgrade)

    run(main)


@pytest.mark.parametrize(
    ("headers", "method", "status"),
    [
        ((), "POST", 426),
        (("Upgrade: h2c",), "GET", 426),
        (("Upgrade: SPDY/3.1", "X-Stream-Protocol-Version: v9"), "POST", 403),
        (("Upgrade: websocket",), "GET", 400),
        (("Upgrade: SPDY/3.1",), "DELETE", 405),
        (("Upgrade: SPDY/3.1", "A: " + "b" * 20000), "POST", 431),
        (("Upgrade: SPDY/3.1", "Content-Length: 5"), "POST", 400),
    ],
)
def test_requests_that_cannot_be_upgraded_are_answered(headers, method, status):
    async def main():
        async with serving() as (server, _):
            head = await answer(server.exec_url(ALL), *headers, method=method)
            assert head.startswith(f"HTTP/1.1 {status} ")

    run(main)


def test_a_request_that_does_not_come_is_given_up(monkeypatch):
    async def main():
        monkeypatch.setattr("noded.edge.streaming.HEAD_SECONDS", 0.1)
        async with serving() as (server, _):
            host = server.exec_url(ALL).removeprefix("http://").partition("/")[0]
            reader, writer = await asyncio.open_connection(*host.rsplit(":", 1))
            writer.write(b"POST /exec")
            assert (await reader.read()).startswith(b"HTTP/1.1 408 ")
            writer.close()

    run(main)


def test_an_idle_stream_is_ended():
    async def main():
        async with serving(idle_timeout_seconds=0.1) as (server, core):
            client, _ = await spdy(server.exec_url(ALL), "v4.channel.k8s.io")
            open_all(client)
            await core.commands_closed()
            await client.until(lambda it: 1 in it.ended)
            assert b"no byte passed" in client.data[1]
            await client.close()

    run(main)


def test_closing_the_server_ends_its_sessions_and_says_so():
    async def main():
        async with serving() as (server, core):
            client, _ = await spdy(server.exec_url(ALL), "v4.channel.k8s.io")
            open_all(client)
            await core.started.wait()
            closing = asyncio.ensure_future(server.close())
            await client.until(lambda it: 1 in it.ended)
            assert b"noded is stopping" in client.data[1]
            await client.close()
            await closing
            assert core.commands[0].closed.is_set()

    run(main)


def test_urls_are_bounded():
    async def main():
        async with serving() as (server, _):
            for _ in range(1000):
                server.exec_url(ALL)
            with pytest.raises(ResourceExhausted):
                server.exec_url(ALL)

    run(main)


def test_a_taken_port_is_named():
    async def main():
        async with serving() as (server, _):
            port = int(server.exec_url(ALL).split(":")[2].split("/")[0])
            other = StreamingServer(StreamingConfig(port=port), Bridge())
            with pytest.raises(Unavailable, match=r"streaming\.port"):
                other.bind()
            with pytest.raises(InvalidArgument, match=r"streaming\.address"):
                StreamingServer(StreamingConfig(address="localhost"), Bridge()).bind()

    run(main)
