"""From an HTTP request to a conversation: token, transport, protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from noded.streams.channels import CommandChannels, SpdyChannels, WebSocketChannels
from noded.streams.command import run_attach, run_exec, say_goodbye
from noded.streams.forward import SpdyForward, WebSocketForward
from noded.streams.link import Link
from noded.streams.requests import Backend, CommandRequest, ForwardRequest, StreamRequest
from noded.streams.tokens import Tokens
from noded.streams.tunnel import WebSocketTunnel
from noded.wire import channels, http_upgrade, websocket
from noded.wire.http_upgrade import Request, UpgradeError

_VERSION_HEADER = "x-stream-protocol-version"
_SOCKET_HEADER = "sec-websocket-protocol"


@dataclass(frozen=True, slots=True)
class Conversation:
    """What goes on over an upgraded connection.

    Args:
        reader: reads the connection; ends when the client closes it.
        session: does the work; ends when it is done. Whichever ends first ends the other.
        farewell: tells the client why the server ends it, if it can be told.
    """

    reader: Callable[[], Coroutine[Any, Any, None]]
    session: Callable[[], Coroutine[Any, Any, None]]
    farewell: Callable[[str], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class Upgrade:
    """An accepted request. `answer` is the head of the 101 answer."""

    kind: str
    protocol: str
    answer: bytes
    start: Callable[[Link, Backend], Conversation]


def upgrade(request: Request, tokens: Tokens[StreamRequest]) -> Upgrade:
    """Decide on a request. Its token is used up whatever comes out.

    Raises: UpgradeError with the status to answer.
    """
    if request.method not in ("GET", "POST"):
        raise UpgradeError(
            HTTPStatus.METHOD_NOT_ALLOWED, "open streams with GET or POST", (("Allow", "GET, POST"),)
        )
    kind, _, token = request.path.removeprefix("/").partition("/")
    wanted = tokens.redeem(kind, token)
    if wanted is None:
        raise UpgradeError(HTTPStatus.NOT_FOUND, "unknown, used or expired URL: ask for a new one")
    if not request.has_token("connection", "upgrade"):
        raise _upgrade_required()
    if request.has_token("upgrade", "websocket"):
        return _websocket(kind, request, wanted)
    if request.has_token("upgrade", channels.SPDY_UPGRADE):
        return _spdy(kind, request, wanted)
    raise _upgrade_required()


def _upgrade_required() -> UpgradeError:
    return UpgradeError(
        HTTPStatus.UPGRADE_REQUIRED,
        "upgrade the connection to SPDY/3.1 or websocket",
        (("Upgrade", f"{channels.SPDY_UPGRADE}, websocket"),),
    )


# SPDY


def _spdy(kind: str, request: Request, wanted: StreamRequest) -> Upgrade:
    forward = isinstance(wanted, ForwardRequest)
    known = (channels.PORT_FORWARD,) if forward else channels.SPDY_COMMAND
    offered = request.values(_VERSION_HEADER)
    # The oldest clients do not negotiate.
    protocol = channels.negotiate(offered, known) if offered else known[-1]
    if protocol is None:
        raise UpgradeError(
            HTTPStatus.FORBIDDEN,
            f"none of the protocols {', '.join(offered)} is spoken here",
            [("X-Accepted-Stream-Protocol-Versions", name) for name in known],
        )
    answer = http_upgrade.switching(
        [("Upgrade", channels.SPDY_UPGRADE), ("X-Stream-Protocol-Version", protocol)]
    )

    def start(link: Link, backend: Backend) -> Conversation:
        if isinstance(wanted, ForwardRequest):
            return _spdy_forward(link, wanted, backend)
        return _command(kind, SpdyChannels(link, protocol, wanted), wanted, backend)

    return Upgrade(kind, protocol, answer, start)


# WebSocket


def _websocket(kind: str, request: Request, wanted: StreamRequest) -> Upgrade:
    keys = request.values("sec-websocket-key")
    if request.method != "GET" or request.values("sec-websocket-version") != ["13"] or len(keys) != 1:
        raise UpgradeError(
            HTTPStatus.BAD_REQUEST,
            "a WebSocket handshake is a GET with Sec-WebSocket-Key and Sec-WebSocket-Version 13",
            (("Sec-WebSocket-Version", "13"),),
        )
    try:
        accept = websocket.accept_key(keys[0])
    except ValueError as error:
        raise UpgradeError(HTTPStatus.BAD_REQUEST, str(error)) from None
    forward = isinstance(wanted, ForwardRequest)
    known = channels.WEBSOCKET_PORT_FORWARD if forward else channels.WEBSOCKET_COMMAND
    offered = request.values(_SOCKET_HEADER)
    protocol = channels.negotiate(offered, known)
    if protocol is None and offered:
        raise UpgradeError(
            HTTPStatus.FORBIDDEN,
            f"none of the protocols {', '.join(offered)} is spoken here, but {', '.join(known)}",
        )
    headers = [("Upgrade", "websocket"), ("Sec-WebSocket-Accept", accept)]
    if protocol is not None:
        headers.append(("Sec-WebSocket-Protocol", protocol))
    spoken = protocol or ("v4.channel.k8s.io" if forward else channels.V1)

    def start(link: Link, backend: Backend) -> Conversation:
        if isinstance(wanted, CommandRequest):
            return _command(kind, WebSocketChannels(link, spoken, wanted), wanted, backend)
        if spoken == channels.PORT_FORWARD_TUNNEL:
            return _spdy_forward(WebSocketTunnel(link), wanted, backend)
        session = WebSocketForward(link, spoken, wanted, backend)
        return Conversation(session.run, _for_ever, session.finish)

    return Upgrade(kind, spoken, http_upgrade.switching(headers), start)


# both


def _spdy_forward(link: Link, wanted: ForwardRequest, backend: Backend) -> Conversation:
    session = SpdyForward(link, wanted, backend)
    return Conversation(session.run, _for_ever, session.finish)


def _command(kind: str, pipes: CommandChannels, wanted: CommandRequest, backend: Backend) -> Conversation:
    work = run_exec if kind == "exec" else run_attach
    return Conversation(
        pipes.run, lambda: work(pipes, wanted, backend), lambda reason: say_goodbye(pipes, reason)
    )


async def _for_ever() -> None:
    await asyncio.get_running_loop().create_future()
