"""One plugin: its registration, and calls to it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final, TypeVar

import betterproto2
import structlog
import trio

from noded.errors import FailedPrecondition
from noded.nri.connection import Connection, Lost, Refused
from noded.nri.events import ALL_EVENTS, Kind
from noded.nri.names import check_index, check_name
from noded.proto.nri.pkg.api import v1alpha1 as api
from noded.wire.messages import decode, encode
from noded.wire.ttrpc import Code

log = structlog.get_logger(__name__)

M = TypeVar("M", bound=betterproto2.Message)

_PACKAGE: Final = "nri.pkg.api.v1alpha1"
_NRI_VERSION: Final = "v0.13.0"  # of containerd/nri, whose messages these are
_PART_BYTES: Final = 3 << 20  # of the 4 MiB that a message may have


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long plugins may take, in seconds."""

    registration: float
    request: float


Update = Callable[["Plugin", api.UpdateContainersRequest], Awaitable[api.UpdateContainersResponse]]


class Plugin:
    """A connected plugin.

    Args:
        update: what an unsolicited update of the plugin does.
        index, name: of a plugin that noded started; others tell theirs.
        config: what a plugin that noded started is configured with.
    """

    def __init__(
        self,
        stream: trio.SocketStream,
        timeouts: Timeouts,
        update: Update,
        *,
        index: str = "",
        name: str = "",
        config: str = "",
    ) -> None:
        self.connection = Connection(stream, self._serve)
        self.index = index
        self.name = name
        self.preinstalled = bool(name)
        self.pid = 0
        self.events = 0
        self.failures = 0
        self._config = config
        self._timeouts = timeouts
        self._update = update
        self._registered = trio.Event()
        self._refused = ""
        self._wants_all = False
        self._old = False  # knows StateChange only

    @property
    def label(self) -> str:
        """As logs and other plugins know it."""
        return f"{self.index or '??'}-{self.name or 'plugin'}"

    def wants(self, kind: Kind) -> bool:
        return bool(self.events & kind.bit) and not self.connection.closed

    async def register(self) -> None:
        """Wait until the plugin has registered, then configure it. `connection.run` must run.

        Raises: Lost, Refused, ValueError when it does not do its part.
        """
        with trio.move_on_after(self._timeouts.registration):
            await self._registered.wait()
        if self._refused:
            raise ValueError(self._refused)
        if not self._registered.is_set():
            raise Lost(f"it did not register within {self._timeouts.registration:g} s")
        request = api.ConfigureRequest(
            config=self._config,
            runtime_name="noded",
            runtime_version=version("noded"),
            registration_timeout=int(self._timeouts.registration * 1000),
            request_timeout=int(self._timeouts.request * 1000),
            NRI_version=_NRI_VERSION,
        )
        reply = await self._call("Configure", request, api.ConfigureResponse)
        if reply.events & ~ALL_EVENTS:
            raise ValueError(f"it subscribes to events that do not exist: {reply.events:#x}")
        self._wants_all = not reply.events
        self.events = reply.events or ALL_EVENTS

    async def synchronize(
        self, pods: Sequence[api.PodSandbox], containers: Sequence[api.Container]
    ) -> list[api.ContainerUpdate]:
        """Tell the plugin what exists; return the updates that it wants.

        Raises: Lost, Refused, ValueError when it cannot take what exists in several messages.
        """
        updates: list[api.ContainerUpdate] = []
        for request in _parts(pods, containers):
            # Once and with all that exists: it may take as long as the registration that it ends.
            timeout = max(self._timeouts.registration, self._timeouts.request)
            reply = await self._call("Synchronize", request, api.SynchronizeResponse, timeout)
            if request.more and not reply.more:
                raise ValueError("it does not take what exists in several messages")
            updates += reply.update
        return updates

    async def ask(self, kind: Kind, request: Any) -> Any:
        """Tell of an event; return the plugin's answer, None from a plugin that was lost over it.

        Raises: FailedPrecondition with the plugin's words when it refuses.
        """
        try:
            return await self._ask(kind, request)
        except Refused as error:
            if error.code == Code.UNIMPLEMENTED and self._wants_all:
                self.events &= ~kind.bit  # it asked for all events, this one was never meant
                return None
            self.failures += 1
            raise FailedPrecondition(f"NRI plugin {self.label} refused {kind.method}: {error}") from error
        except (Lost, ValueError) as error:
            self.failures += 1
            log.error("NRI plugin closed", plugin=self.label, method=kind.method, error=str(error))
            self.connection.close(str(error))
            return None

    async def _ask(self, kind: Kind, request: Any) -> Any:
        if not (self._old and kind.old):
            try:
                return await self._call(kind.method, request, kind.reply)
            except Refused as error:
                if error.code != Code.UNIMPLEMENTED or not kind.old:
                    raise
            self._old = True
            log.warning("NRI plugin is of an old kind: it gets StateChange", plugin=self.label)
        change = api.StateChangeEvent(
            event=kind.event, pod=request.pod, container=getattr(request, "container", None)
        )
        await self._call("StateChange", change, api.Empty)
        return kind.reply()

    async def _call(
        self, method: str, request: Any, reply: type[M], timeout_seconds: float | None = None
    ) -> M:
        timeout = timeout_seconds or self._timeouts.request
        data = await self.connection.call(f"{_PACKAGE}.Plugin", method, encode(request), timeout)
        return _parse(reply, data, f"the answer to {method}")

    # what the plugin calls

    async def _serve(self, service: str, method: str, payload: bytes) -> bytes:
        if service == f"{_PACKAGE}.Runtime" and method == "RegisterPlugin":
            return self._register(self._request(api.RegisterPluginRequest, payload, method))
        if service == f"{_PACKAGE}.Runtime" and method == "UpdateContainers":
            if not self.events:
                raise Refused(Code.FAILED_PRECONDITION, "register first")
            return encode(
                await self._update(self, self._request(api.UpdateContainersRequest, payload, method))
            )
        raise Refused(Code.UNIMPLEMENTED, f"noded has no {service}.{method}")

    def _request(self, kind: type[M], payload: bytes, method: str) -> M:
        try:
            return _parse(kind, payload, f"the request of {method}")
        except ValueError as error:
            raise Refused(Code.INVALID_ARGUMENT, str(error)) from None

    def _register(self, request: api.RegisterPluginRequest) -> bytes:
        if self._registered.is_set():
            raise Refused(Code.ALREADY_EXISTS, f"this connection is registered as {self.label}")
        try:
            if not self.preinstalled:  # noded knows the others by their file
                self.name = check_name(request.plugin_name)
                self.index = check_index(request.plugin_idx)
        except ValueError as error:
            self._refused = str(error)
            raise Refused(Code.INVALID_ARGUMENT, str(error)) from None
        finally:
            self._registered.set()
        return b""


def _parse(kind: type[M], data: bytes, what: str) -> M:
    """Raises: ValueError."""
    try:
        return decode(data, kind)
    except ValueError as error:
        raise ValueError(f"{what} cannot be read: {error}") from None


def _parts(
    pods: Sequence[api.PodSandbox], containers: Sequence[api.Container]
) -> Iterator[api.SynchronizeRequest]:
    """What exists in messages of a size that the protocol allows; there is always a last one."""
    part, size = api.SynchronizeRequest(), 0
    both: list[api.PodSandbox | api.Container] = [*pods, *containers]
    for one in both:
        length = len(encode(one)) + 8
        if size and size + length > _PART_BYTES:
            part.more = True
            yield part
            part, size = api.SynchronizeRequest(), 0
        if isinstance(one, api.PodSandbox):
            part.pods.append(one)
        else:
            part.containers.append(one)
        size += length
    yield part
