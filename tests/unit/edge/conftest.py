"""An independent gRPC client: stubs that grpc_tools makes from the same .proto, on grpcio."""

from __future__ import annotations

import importlib
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import grpc.aio
import pytest
from edge_fakes import FakeBridge
from grpc_tools import protoc

from noded.edge.methods import all_methods
from noded.edge.server import Server
from noded.host import sockets

PROTO = Path(__file__).parents[3] / "proto"


@pytest.fixture(scope="session")
def stubs(tmp_path_factory):
    """Modules of google.protobuf messages and grpcio stubs: cri, cri_grpc, admin, admin_grpc."""
    output = tmp_path_factory.mktemp("stubs")
    arguments = [f"--proto_path={PROTO}", f"--python_out={output}", f"--grpc_python_out={output}"]
    assert protoc.main(["protoc", *arguments, "cri.proto", "admin.proto"]) == 0
    sys.path.insert(0, str(output))
    try:
        names = {
            "cri": "cri_pb2",
            "cri_grpc": "cri_pb2_grpc",
            "admin": "admin_pb2",
            "admin_grpc": "admin_pb2_grpc",
        }
        return SimpleNamespace(**{name: importlib.import_module(module) for name, module in names.items()})
    finally:
        sys.path.remove(str(output))


@pytest.fixture
def serve(stubs, tmp_path):
    """`async with serve(core) as client`: the server of a core, with a grpcio client on its socket."""

    @asynccontextmanager
    async def serve(core, methods=None, **options):
        bridge = FakeBridge()
        path = tmp_path / "s"
        limit = {key: options.pop(key) for key in ("limit_bytes",) if key in options}
        server = Server(**limit)
        server.serve(all_methods(bridge, core) if methods is None else methods, **options)
        await server.start(sockets.bind(path))
        limits = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        channel = grpc.aio.insecure_channel(f"unix:{path}", options=limits)
        try:
            yield SimpleNamespace(
                server=server,
                bridge=bridge,
                path=path,
                channel=channel,
                runtime=stubs.cri_grpc.RuntimeServiceStub(channel),
                images=stubs.cri_grpc.ImageServiceStub(channel),
                admin=stubs.admin_grpc.AdminStub(channel),
            )
        finally:
            await channel.close()
            await server.drain(0)

    return serve
