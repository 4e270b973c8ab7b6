"""The client against a real grpclib server on a unix socket."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server

from noded.cli.client import CallFailed, Daemon
from noded.edge.codec import Codec
from noded.errors import DeadlineExceeded, InvalidArgument, PermissionDenied, Unavailable
from noded.proto.runtime import v1 as cri

VERSION = "/runtime.v1.RuntimeService/Version"


class Service:
    def __init__(self, answer: Callable[[cri.VersionRequest], Awaitable[cri.VersionResponse]]) -> None:
        self._answer = answer

    async def version(self, stream):
        await stream.send_message(await self._answer(await stream.recv_message()))

    def __mapping__(self):
        return {
            VERSION: Handler(self.version, Cardinality.UNARY_UNARY, cri.VersionRequest, cri.VersionResponse)
        }


@asynccontextmanager
async def serving(path, answer):
    server = Server([Service(answer)], codec=Codec())
    await server.start(path=str(path))
    try:
        yield f"unix://{path}"
    finally:
        server.close()
        await server.wait_closed()


def call(path, answer, timeout: float = 5.0) -> cri.VersionResponse:
    async def run() -> cri.VersionResponse:
        async with serving(path, answer) as address, Daemon(address) as daemon:
            return await daemon.runtime("Version", cri.VersionRequest(), cri.VersionResponse, timeout)

    return asyncio.run(run())


def test_an_answer_comes_back_as_a_message(tmp_path):
    async def answer(request):
        return cri.VersionResponse(runtime_name="noded", runtime_version="1.2.3")

    assert call(tmp_path / "s", answer).runtime_version == "1.2.3"


def test_an_error_keeps_the_daemons_words_and_code(tmp_path):
    async def answer(request):
        raise GRPCError(Status.NOT_FOUND, "no container abc")

    with pytest.raises(CallFailed, match=r"^no container abc$") as caught:
        call(tmp_path / "s", answer)
    assert caught.value.status is Status.NOT_FOUND


def test_an_error_without_words_is_told_by_its_code(tmp_path):
    async def answer(request):
        raise GRPCError(Status.ABORTED)

    with pytest.raises(CallFailed, match="ABORTED"):
        call(tmp_path / "s", answer)


def test_a_daemon_that_does_not_answer_is_a_deadline(tmp_path):
    async def answer(request):
        await asyncio.Event().wait()

    with pytest.raises((DeadlineExceeded, CallFailed), match=r"in time|DEADLINE|deadline"):
        call(tmp_path / "s", answer, 0.1)


@pytest.mark.parametrize("address", ["", "noded.sock", "tcp://127.0.0.1:1", "unix://relative"])
def test_an_address_that_is_no_path_is_refused(address):
    with pytest.raises(InvalidArgument, match="expected unix:///PATH"):
        Daemon(address)


def test_a_socket_that_nobody_listens_on_is_told_apart_from_a_missing_one(tmp_path):
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as closed:
        closed.bind(str(path))

    async def run(address: str) -> None:
        async with Daemon(address) as daemon:
            await daemon.runtime("Version", cri.VersionRequest(), cri.VersionResponse)

    with pytest.raises(Unavailable, match="nothing listens"):
        asyncio.run(run(f"unix://{path}"))
    with pytest.raises(Unavailable, match="does not exist"):
        asyncio.run(run(f"unix://{tmp_path}/other"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may connect to every socket")
def test_a_socket_of_another_user_is_a_matter_of_permission(tmp_path):
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        path.chmod(0)

        async def run() -> None:
            async with Daemon(str(path)) as daemon:
                await daemon.runtime("Version", cri.VersionRequest(), cri.VersionResponse)

        with pytest.raises(PermissionDenied, match="run as root"):
            asyncio.run(run())
