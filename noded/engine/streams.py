"""Streams of clients into pods: commands, attachments, connections.

The core opens them and sees to what must outlive a client; the bytes are carried by the edge, which
owns what it has adopted.
"""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Callable, Sequence

import structlog
import trio

from noded.engine.container import Container
from noded.engine.container_ladder import ContainerLadder
from noded.engine.handlers import Handlers
from noded.engine.registry import Registry
from noded.engine.sandbox import PodSandbox
from noded.errors import FailedPrecondition, NodedError
from noded.host import namespaces
from noded.model.paths import Layout
from noded.model.runtime import ExecStream, RuntimeFeatures
from noded.model.states import ContainerState
from noded.spec.process import exec_process

log = structlog.get_logger(__name__)

_CONNECT_SECONDS = 10.0
_LOOPBACKS = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))


class Streams:
    """Opens streams. `nursery` is for commands whose clients have left."""

    def __init__(
        self,
        *,
        layout: Layout,
        registry: Registry,
        handlers: Handlers,
        ladder: ContainerLadder,
        nursery: trio.Nursery,
    ) -> None:
        self._layout = layout
        self._handlers = handlers
        self._registry = registry
        self._ladder = ladder
        self._nursery = nursery

    async def exec(
        self,
        name: str,
        command: tuple[str, ...],
        terminal: bool,
        stdin: bool,
        adopt: Callable[[ExecStream], None],
    ) -> None:
        """Start a command in a running container and hand its streams over.

        Raises: NotFound, FailedPrecondition when it does not run or the command cannot be started.
        Cancellation: a command that was started loses its streams. Spec: CRI v1 Exec.
        """
        container = self._running(name)
        text = await trio.Path(container.ref.bundle / "config.json").read_bytes()
        process = exec_process(json.loads(text), command, terminal=terminal)
        runtime = await self._ladder.sandbox_runtime(container)
        stream = await runtime.exec_open(container.ref, process, terminal=terminal, stdin=stdin)
        self._nursery.start_soon(self._see_off, container.id, stream)
        adopt(stream)

    async def _see_off(self, container_id: str, stream: ExecStream) -> None:
        """Wait for the command's end, for it may outlive its client, and somebody must collect it."""
        try:
            code = await stream.wait()
        except Exception as error:
            log.warning("end of a command not seen", container=container_id, error=str(error))
        else:
            log.debug("command ended", container=container_id, code=code)

    async def attach(self, name: str, adopt: Callable[[socket.socket], None]) -> None:
        """Connect to a running container's own streams. Spec: CRI v1 Attach."""
        container = self._running(name)
        runtime = await self._ladder.sandbox_runtime(container)
        sock = socket.socket(fileno=await runtime.attach_open(container.ref))
        sock.setblocking(False)
        adopt(sock)

    async def resize(self, name: str, width: int, height: int) -> None:
        """Set the size of a container's terminal."""
        container = self._running(name)
        runtime = await self._ladder.sandbox_runtime(container)
        await runtime.resize(container.ref, width=width, height=height)

    async def connect(self, sandbox_id: str, port: int, adopt: Callable[[socket.socket], None]) -> bool:
        """Connect to a port on the loopback of a ready pod, IPv4 first.

        Returns whether the sending side of what was adopted can be ended without the other one.

        Raises: NotFound, FailedPrecondition when the pod is not ready or nobody listens.
        Spec: CRI v1 PortForward.
        """
        sandbox = self._registry.sandbox(sandbox_id)
        if not sandbox.ready:
            raise FailedPrecondition(f"pod sandbox {sandbox.id[:12]} is not ready")
        refusals: list[str] = []
        silent = False
        features = await self._handlers.features_of(sandbox.record.handler)
        on_node, addresses = _addresses(sandbox, features)
        for family, address in addresses:
            try:
                sock = await self._socket(sandbox.id, on_node, family, with_data=not features.waiting_reads)
                with trio.move_on_after(_CONNECT_SECONDS):
                    try:
                        await sock.connect((address, port))
                        plain = socket.socket(fileno=sock.detach())
                        plain.setblocking(False)
                        adopt(plain)
                        return True
                    finally:
                        sock.close()
                refusals.append(f"{address}: no answer within {_CONNECT_SECONDS:g} s")
                silent = True
            except OSError as error:
                if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                    refusals.append(f"{address}: {_words(error)}")
        if addresses is not _LOOPBACKS and features.forwards and not silent:
            if refusal := await self._by_runtime(sandbox, port, adopt):
                refusals.append(f"127.0.0.1: {refusal}")
            else:
                return False
        elif addresses is not _LOOPBACKS and not features.forwards:
            refusals.append("only what listens on all addresses can be reached in a pod of this runtime")
        raise FailedPrecondition(
            f"cannot connect to port {port} inside pod sandbox {sandbox.id[:12]}: "
            + ("; ".join(refusals) or "it has no loopback address")
        )

    async def _by_runtime(
        self, sandbox: PodSandbox, port: int, adopt: Callable[[socket.socket], None]
    ) -> str:
        """Have the runtime connect to a loopback that only it can reach; say why it could not, "" = it did.

        It is asked last: what also listens on the pod's address is reached without it, at less cost and with
        sides that end one by one. And not when that address was silent: where a server's queue is full,
        gVisor keeps its whole sandbox waiting for the connection.
        """
        try:
            runtime = await self._ladder.open_sandbox(sandbox)
            sock = socket.socket(fileno=await runtime.forward_open(port))
        except OSError as error:
            return _words(error)
        except NodedError as error:
            return str(error)
        sock.setblocking(False)
        adopt(sock)
        return ""

    async def _socket(
        self, sandbox_id: str, host_network: bool, family: int, *, with_data: bool
    ) -> trio.socket.SocketType:
        """A socket of the pod's network: it stays there wherever it is used.

        `with_data`: servers accept its connection together with the first data, if that comes within
        200 ms.
        """

        def make() -> socket.socket:
            sock = socket.socket(family, socket.SOCK_STREAM)
            if with_data:  # Linux holds back the last packet of the handshake, so that it can carry data
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1)
            return sock

        if host_network:
            await trio.lowlevel.checkpoint()
            return trio.socket.from_stdlib_socket(make())
        pin = self._layout.namespace_pin(sandbox_id, "net")
        # Not abandoned on cancel, so the socket is not lost.
        sock = await trio.to_thread.run_sync(namespaces.inside, {"net": pin}, make)
        return trio.socket.from_stdlib_socket(sock)

    def _running(self, name: str) -> Container:
        container = self._registry.container(name)
        state = container.view.state
        if state is not ContainerState.RUNNING:
            raise FailedPrecondition(f"container {container.id[:12]} is {state.name}, not RUNNING")
        return container


def _words(error: OSError) -> str:
    """The system's own words: trio puts the address before them, which is said anyway."""
    return os.strerror(error.errno) if error.errno else str(error)


def _addresses(
    sandbox: PodSandbox, features: RuntimeFeatures
) -> tuple[bool, Sequence[tuple[socket.AddressFamily, str]]]:
    """Whether to connect from the node's network, and where to.

    Where the pod's sockets are not in its network namespace, its loopback cannot be reached; what
    listens on all addresses can be, from outside.
    """
    if sandbox.record.config.host_network or features.sockets_in_netns:
        return sandbox.record.config.host_network, _LOOPBACKS
    families = (socket.AF_INET6 if ":" in ip else socket.AF_INET for ip in sandbox.record.ips)
    return True, tuple(zip(families, sandbox.record.ips, strict=True))
