"""The streaming server: where the URLs of Exec, Attach and PortForward lead.

The CRI call only leaves a request behind and returns a URL with a one-time token. The client, for
kubectl it is kubelet, then opens that URL and upgrades to SPDY or WebSocket. Bytes are carried in
this loop, straight between descriptors; what needs the node goes through the bridge.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
import ssl
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING

import structlog

from noded.config import StreamingConfig
from noded.edge.cri.core import Bridge, Streams
from noded.edge.streaming_backend import CoreBackend
from noded.edge.streaming_tls import TlsFiles
from noded.errors import FailedPrecondition, InvalidArgument, Unavailable
from noded.streams.link import SocketLink, cancel_all, tune
from noded.streams.requests import CommandRequest, ForwardRequest, StreamRequest
from noded.streams.tokens import Tokens
from noded.wire import http_upgrade

if TYPE_CHECKING:
    from noded.edge.streaming_upgrade import Conversation, Upgrade

log = structlog.get_logger(__name__)

CONNECTION_LIMIT = 1000
HEAD_SECONDS = 10.0  # for a client to send its request, TLS handshake included
_FLUSH_SECONDS = 60.0  # for a slow client to take what is buffered for it
_FAREWELL_SECONDS = 5.0  # for a client to close when all is said
_DISMISS_SECONDS = 1.0  # for a client to be told that its session ends here
_CLOSE_SECONDS = 4.0  # for all of them
_ACCEPT_PAUSE_SECONDS = 0.2  # after an accept that failed for want of descriptors or memory
_BACKLOG = 128


class StreamingServer:
    """Issues URLs and serves them: `bind`, then `start`, and `close` at the end."""

    def __init__(self, config: StreamingConfig, bridge: Bridge) -> None:
        self._config = config
        self._bridge = bridge
        self._backend: CoreBackend | None = None
        self._tls: TlsFiles | None = None
        self._tokens: Tokens[StreamRequest] | None = None
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()

    def bind(self) -> None:
        """Take the port and read the certificate, to fail before anything else is started.

        Raises: InvalidArgument naming the key; Unavailable naming address and port.
        """
        config = self._config
        if config.tls_cert is not None:
            self._tls = TlsFiles(config)
        try:
            self._listener = _listen(config.address, config.port)
        except ValueError:
            raise InvalidArgument(f"streaming.address: {config.address!r} is not an IP address") from None
        except (OSError, OverflowError) as error:
            raise Unavailable(
                f"cannot listen on streaming.address {config.address!r}, "
                f"streaming.port {config.port}: {error}"
            ) from error

    def start(self, streams: Streams) -> None:
        """Serve. `bind` comes before."""
        assert self._listener is not None
        loop = asyncio.get_running_loop()
        self._backend = CoreBackend(self._bridge, streams)
        self._tokens = Tokens(loop.time)
        self._accepting = loop.create_task(self._accept(self._listener))
        log.info("streaming server listens", url=self._base())

    async def close(self) -> None:
        """Stop accepting and end every session. Idempotent."""
        if self._accepting is not None:
            await cancel_all({self._accepting})
        if self._listener is not None:
            self._listener.close()
        self._stopping.set()
        if self._connections:
            await asyncio.wait(self._connections, timeout=_CLOSE_SECONDS)
        await cancel_all(self._connections)

    # URLs

    def exec_url(self, request: CommandRequest) -> str:
        """A URL for one exec. Raises: ResourceExhausted, FailedPrecondition."""
        return self._url("exec", request)

    def attach_url(self, request: CommandRequest) -> str:
        """A URL for one attach."""
        return self._url("attach", request)

    def port_forward_url(self, request: ForwardRequest) -> str:
        """A URL for one port-forward."""
        return self._url("portforward", request)

    def _url(self, kind: str, request: StreamRequest) -> str:
        if self._tokens is None:
            raise FailedPrecondition("the streaming server does not run")
        return f"{self._base()}/{kind}/{self._tokens.issue(kind, request)}"

    def _base(self) -> str:
        if self._listener is None:
            raise FailedPrecondition("the streaming server does not run")
        host, port = self._listener.getsockname()[:2]
        address = ipaddress.ip_address(host)
        if address.is_unspecified:  # the client is on this node
            address = ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1")
        name = f"[{address}]" if address.version == 6 else str(address)
        return f"{'http' if self._tls is None else 'https'}://{name}:{port}"

    # connections

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(listener)
            except OSError as error:
                if error.errno not in (errno.ECONNABORTED, errno.EPROTO):
                    log.error("cannot accept a stream", error=error.strerror)
                    await asyncio.sleep(_ACCEPT_PAUSE_SECONDS)
                continue
            if len(self._connections) >= CONNECTION_LIMIT:
                log.warning("too many streams, one is refused", limit=CONNECTION_LIMIT)
                sock.close()
                continue
            task = loop.create_task(self._serve(sock))
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)

    async def _serve(self, sock: socket.socket) -> None:
        """Serve one connection to its end. Never raises but when it is cancelled."""
        tune(sock)
        try:
            async with asyncio.timeout(HEAD_SECONDS):
                link = await self._connect(sock)
        except (OSError, ssl.SSLError, TimeoutError) as error:
            log.debug("stream not set up", error=str(error))
            sock.close()
            return
        except BaseException:
            sock.close()
            raise
        try:
            await self._converse(link)
        except (OSError, ValueError) as error:  # the client broke the connection or the protocol
            log.debug("stream lost", error=str(error))
        except Exception:
            log.exception("stream failed")
        finally:
            await link.close()

    async def _connect(self, sock: socket.socket) -> SocketLink:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        context = None if self._tls is None else self._tls.context()
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, sock, ssl=context)
        return SocketLink(reader, asyncio.StreamWriter(transport, protocol, reader, loop))

    async def _converse(self, link: SocketLink) -> None:
        accepted = await self._upgrade(link)
        if accepted is None:
            await link.flush(_FAREWELL_SECONDS)
            await link.discard(_FAREWELL_SECONDS)
            return
        assert self._backend is not None
        await link.write([accepted.answer])
        log.debug("stream begins", kind=accepted.kind, protocol=accepted.protocol)
        await self._until_end(link, accepted.start(link, self._backend))
        log.debug("stream ends", kind=accepted.kind)

    async def _until_end(self, link: SocketLink, conversation: Conversation) -> None:
        """Carry a conversation until the session or the client or the idle time ends it."""
        loop = asyncio.get_running_loop()
        limit = self._config.idle_timeout_seconds
        reader = loop.create_task(conversation.reader())
        session = loop.create_task(conversation.session())
        idle = loop.create_task(link.idle(limit or float("inf")))
        stopping = loop.create_task(_wait(self._stopping))
        try:
            ends = {reader, session, idle, stopping}
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if session in done:
                session.result()
                await link.flush(_FLUSH_SECONDS)
                await asyncio.wait({reader}, timeout=_FAREWELL_SECONDS)
            elif reader in done:
                reader.result()
            elif idle in done:
                log.info("stream was idle and is ended", seconds=limit)
                await self._dismiss(link, session, conversation, f"no byte passed for {limit:g} s")
            else:
                await self._dismiss(link, session, conversation, "noded is stopping")
        finally:
            await cancel_all({reader, session, idle, stopping})

    async def _dismiss(
        self, link: SocketLink, session: asyncio.Task[None], conversation: Conversation, reason: str
    ) -> None:
        """End a session that is not done and tell the client."""
        await cancel_all({session})
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(_DISMISS_SECONDS):
                await conversation.farewell(reason)
        await link.flush(_DISMISS_SECONDS)
        await link.discard(_DISMISS_SECONDS)

    async def _upgrade(self, link: SocketLink) -> Upgrade | None:
        """Read the request and answer it if it is refused."""
        assert self._tokens is not None
        parser = http_upgrade.UpgradeParser()
        try:
            async with asyncio.timeout(HEAD_SECONDS):
                request = None
                while request is None:
                    data = await link.read()
                    if not data:
                        return None
                    request = parser.receive(data)
            from noded.edge.streaming_upgrade import upgrade  # half a megabyte for who never streams

            accepted = upgrade(request, self._tokens)
        except TimeoutError:
            refusal = http_upgrade.refusal(HTTPStatus.REQUEST_TIMEOUT, "the request took too long")
        except http_upgrade.UpgradeError as error:
            refusal = http_upgrade.refusal(error.status, str(error), error.headers)
        else:
            link.unread(parser.trailing)
            return accepted
        with suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL_SECONDS):
                await link.write([refusal])
        return None


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


def _listen(address: str, port: int) -> socket.socket:
    version = ipaddress.ip_address(address).version
    sock = socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock
