"""The gRPC server as grpcio sees it."""

from __future__ import annotations

import asyncio
import logging
import socket
import time

import grpc
import grpc.aio
import h2.config
import h2.connection
import h2.events
import pytest
import structlog
from edge_fakes import FakeCore, container
from structlog.testing import capture_logs

from noded import errors
from noded.edge.method import server_stream, unary
from noded.edge.server import LIMIT_BYTES, Server
from noded.proto.runtime import v1


@pytest.fixture(autouse=True)
def every_level(caplog):
    """What other tests set the log up for must not hide what these look for."""
    caplog.set_level(logging.DEBUG)


async def failure(call):
    """The code and message that a call fails with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details()


async def bare_call(client, path, data=b"", **options):
    return await client.channel.unary_unary(path)(data, **options)


def test_an_unknown_method_is_unimplemented(serve):
    async def main():
        async with serve(FakeCore()) as client:
            for path in ("/runtime.v1.RuntimeService/FromTheFuture", "/other.v9.Service/Method"):
                code, message = await failure(bare_call(client, path))
                assert code is grpc.StatusCode.UNIMPLEMENTED
                assert path in message

    asyncio.run(main())


def test_an_unknown_method_answers_with_the_content_type_that_grpc_go_demands(serve):
    async def main():
        async with serve(FakeCore()) as client:
            status, headers = await raw_request(client.path, "/runtime.v1.RuntimeService/FromTheFuture")
            assert status == "200"
            assert headers["content-type"] == "application/grpc+proto"
            assert headers["grpc-status"] == "12"

    asyncio.run(main())


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({":method": "GET"}, "405"),
        ({"content-type": "text/html"}, "415"),
        ({"content-type": "application/grpc+json"}, "415"),
    ],
)
def test_what_is_not_grpc_gets_an_http_status(serve, changed, expected):
    async def main():
        async with serve(FakeCore()) as client:
            status, _ = await raw_request(client.path, "/runtime.v1.RuntimeService/Version", changed)
            assert status == expected

    asyncio.run(main())


async def raw_request(path, method, changed=None):
    """One request over HTTP/2 without any gRPC library; returns the status and all headers."""
    reader, writer = await asyncio.open_unix_connection(path)
    connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    connection.initiate_connection()
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": method,
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
    } | (changed or {})
    connection.send_headers(1, list(headers.items()))
    connection.send_data(1, b"\0\0\0\0\0", end_stream=True)
    received, ended = {}, False
    async with asyncio.timeout(10):
        while not ended:
            writer.write(connection.data_to_send())
            for event in connection.receive_data(await reader.read(65536)):
                if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                    received |= dict(event.headers)
                ended |= isinstance(event, h2.events.StreamEnded)
    writer.close()
    return received[":status"], received


CLASSES = {
    errors.InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
    errors.PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    errors.ResourceExhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.Aborted: grpc.StatusCode.ABORTED,
    errors.Unimplemented: grpc.StatusCode.UNIMPLEMENTED,
    errors.DataLoss: grpc.StatusCode.DATA_LOSS,
    errors.Internal: grpc.StatusCode.INTERNAL,
    errors.Unknown: grpc.StatusCode.UNKNOWN,
}


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_class_reaches_the_client_with_its_code_and_words(serve, stubs, kind):
    async def main():
        core = FakeCore()
        core.sink.error = kind("registry.example: gib das Passwort – naïve ✓")
        async with serve(core) as client:
            code, message = await failure(client.runtime.StopPodSandbox(stop_request(stubs)))
            assert code is CLASSES[kind]
            assert message == "registry.example: gib das Passwort – naïve ✓"

    asyncio.run(main())


def test_a_pull_error_keeps_the_prefix_that_kubelet_matches(serve, stubs):
    async def main():
        core = FakeCore()
        core.sink.error = errors.RegistryUnavailable("r.example: no answer")
        async with serve(core) as client:
            request = stubs.cri.PullImageRequest(image=stubs.cri.ImageSpec(image="r.example/a"))
            code, message = await failure(client.images.PullImage(request))
            assert (code, message) == (grpc.StatusCode.UNKNOWN, "RegistryUnavailable: r.example: no answer")

    asyncio.run(main())


def test_any_other_exception_is_a_defect_with_a_logged_traceback(serve, stubs):
    async def main():
        core = FakeCore()
        core.sink.error = KeyError("oops")
        async with serve(core) as client:
            with capture_logs() as logs:
                code, message = await failure(client.runtime.StopPodSandbox(stop_request(stubs)))
            assert (code, message) == (grpc.StatusCode.INTERNAL, "defect in noded: KeyError: 'oops'")
            (defect,) = [entry for entry in logs if entry["log_level"] == "error"]
            assert defect["exc_info"] is core.sink.error

    asyncio.run(main())


def stop_request(stubs):
    return stubs.cri.StopPodSandboxRequest(pod_sandbox_id="a1")


def test_each_call_is_logged_once_with_its_operation_id(serve, stubs):
    async def main():
        core = FakeCore()
        async with serve(core) as client:
            with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as logs:
                await client.runtime.Version(stubs.cri.VersionRequest())
                core.sink.error = errors.Unavailable("later")
                await failure(client.runtime.StopPodSandbox(stop_request(stubs)))
        good, bad = [entry for entry in logs if entry["event"] == "rpc"]
        assert (good["log_level"], good["method"], good["code"]) == ("debug", "Version", "OK")
        assert (bad["log_level"], bad["method"], bad["code"], bad["error"]) == (
            "info", "StopPodSandbox", "UNAVAILABLE", "later",
        )  # fmt: skip
        assert good["op"] != bad["op"]
        assert good["duration_ms"] >= 0

    asyncio.run(main())


def test_bytes_that_are_no_message_are_an_invalid_argument(serve):
    async def main():
        async with serve(FakeCore()) as client:
            for data in (b"\x0a\x05abc", b"\x08\x01", b"\xff", b"\x0a\x01\xff"):
                code, message = await failure(
                    bare_call(client, "/runtime.v1.RuntimeService/StopPodSandbox", data)
                )
                assert code is grpc.StatusCode.INVALID_ARGUMENT, data
                assert "StopPodSandboxRequest" in message

    asyncio.run(main())


def test_a_request_over_the_limit_is_refused_and_the_connection_lives_on(serve, stubs):
    async def main():
        async with serve(FakeCore()) as client:
            request = stubs.cri.StopPodSandboxRequest(pod_sandbox_id="a" * LIMIT_BYTES)
            code, message = await failure(client.runtime.StopPodSandbox(request))
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert str(LIMIT_BYTES) in message
            assert (await client.runtime.Version(stubs.cri.VersionRequest())).runtime_name == "noded"

    asyncio.run(main())


def test_a_request_just_below_the_limit_arrives(serve, stubs):
    async def main():
        async with serve(FakeCore()) as client:
            request = stubs.cri.StopPodSandboxRequest(pod_sandbox_id="a" * (LIMIT_BYTES - 100))
            await client.runtime.StopPodSandbox(request)
            assert client.bridge.asked[0].args == ("a" * (LIMIT_BYTES - 100),)

    asyncio.run(main())


def test_an_answer_over_the_limit_says_what_to_do(serve, stubs):
    async def main():
        core = FakeCore(containers=[container(number) for number in range(20)])
        async with serve(core, limit_bytes=1000) as client:
            code, message = await failure(client.runtime.ListContainers(stubs.cri.ListContainersRequest()))
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "filter" in message

    asyncio.run(main())


def test_a_compressed_request_is_refused_as_unimplemented(serve, stubs):
    async def main():
        async with serve(FakeCore()) as client:
            request = stubs.cri.StopPodSandboxRequest(pod_sandbox_id="a" * 10000)
            call = client.runtime.StopPodSandbox(request, compression=grpc.Compression.Gzip)
            code, message = await failure(call)
            assert code is grpc.StatusCode.UNIMPLEMENTED
            assert "compressed" in message

    asyncio.run(main())


def test_a_passed_deadline_is_answered_in_our_words_before_the_client_gives_up(serve, stubs):
    async def main():
        core = FakeCore()
        core.sink.hold()
        async with serve(core) as client:
            request = stubs.cri.RunPodSandboxRequest(
                config=stubs.cri.PodSandboxConfig(metadata=stubs.cri.PodSandboxMetadata(name="a"))
            )
            code, message = await failure(client.runtime.RunPodSandbox(request, timeout=0.5))
            assert code is grpc.StatusCode.DEADLINE_EXCEEDED
            assert "stage network" in message
            (asked,) = client.bridge.asked
            assert asked.detach
            assert 0.3 < asked.deadline_seconds < 0.48
            assert core.sink.cancelled == []  # it goes on
            core.sink.gate.set()

    asyncio.run(main())


def test_a_call_without_a_deadline_has_none(serve, stubs):
    async def main():
        async with serve(FakeCore()) as client:
            await client.runtime.StopPodSandbox(stop_request(stubs))
            assert client.bridge.asked[0].deadline_seconds is None

    asyncio.run(main())


def test_a_cancel_by_the_client_reaches_the_core(serve, stubs):
    async def main():
        core = FakeCore()
        core.sink.hold()
        async with serve(core) as client:
            call = client.runtime.StopPodSandbox(stop_request(stubs))
            await asyncio.wait_for(core.sink.entered.wait(), 10)
            with capture_logs() as logs:
                call.cancel()
                await asyncio.wait_for(core.sink.left.wait(), 10)
                await asyncio.wait({task for _, task in client.server._running()})
            assert core.sink.cancelled == ["stop"]
            assert [(entry["log_level"], entry["code"]) for entry in logs] == [("debug", "CANCELLED")]

    asyncio.run(main())


def test_a_core_that_cancels_by_itself_does_not_leave_the_client_waiting(serve, stubs):
    async def main():
        core = FakeCore()
        core.sink.error = asyncio.CancelledError()
        async with serve(core) as client:
            code, _ = await failure(client.runtime.StopPodSandbox(stop_request(stubs), timeout=20))
            assert code is grpc.StatusCode.INTERNAL

    asyncio.run(main())


def test_a_client_that_disconnects_cancels_its_calls(serve, stubs):
    async def main():
        core = FakeCore()
        core.sink.hold()
        async with serve(core) as client:
            call = client.runtime.StopPodSandbox(stop_request(stubs))
            await asyncio.wait_for(core.sink.entered.wait(), 10)
            await client.channel.close()
            await asyncio.wait_for(core.sink.left.wait(), 10)
            assert core.sink.cancelled == ["stop"]
            call.cancel()

    asyncio.run(main())


def test_drain_lets_a_unary_call_finish_and_ends_with_an_open_client_connection(serve, stubs):
    async def main():
        core = FakeCore()
        core.sink.hold()
        async with serve(core) as client:
            call = client.runtime.StopPodSandbox(stop_request(stubs))
            await asyncio.wait_for(core.sink.entered.wait(), 10)
            drain = asyncio.ensure_future(client.server.drain(10))
            await asyncio.sleep(0)
            code, message = await failure(client.runtime.Version(stubs.cri.VersionRequest()))
            assert (code, message) == (grpc.StatusCode.UNAVAILABLE, "noded is shutting down: try again")
            assert not drain.done()
            core.sink.gate.set()
            await call
            assert await asyncio.wait_for(drain, 5) is True
            assert core.sink.finished == ["stop"]

    asyncio.run(main())


def test_drain_cancels_what_outlasts_the_grace_and_tells_the_client(serve, stubs):
    async def main():
        core = FakeCore()
        core.sink.hold()
        async with serve(core) as client:
            call = client.runtime.StopPodSandbox(stop_request(stubs))
            await asyncio.wait_for(core.sink.entered.wait(), 10)
            assert await asyncio.wait_for(client.server.drain(0.01), 5) is False
            assert core.sink.cancelled == ["stop"]
            assert await failure(call) == (grpc.StatusCode.UNAVAILABLE, "noded is shutting down: try again")

    asyncio.run(main())


def test_drain_ends_streams_without_waiting_for_the_grace(serve, stubs):
    async def endless(request, deadline):
        yield v1.ContainerEventResponse(container_id="one")
        await asyncio.Event().wait()

    async def main():
        name = ("runtime.v1.RuntimeService", "GetContainerEvents")
        methods = [server_stream(*name, v1.GetEventsRequest, v1.ContainerEventResponse, endless)]
        async with serve(FakeCore(), methods) as client:
            stream = client.runtime.GetContainerEvents(stubs.cri.GetEventsRequest())
            assert (await stream.read()).container_id == "one"
            started = time.monotonic()
            assert await client.server.drain(60) is True
            assert time.monotonic() - started < 30
            code, _ = await failure(stream.read())
            assert code is grpc.StatusCode.UNAVAILABLE

    asyncio.run(main())


def test_drain_ends_although_a_client_never_reads(serve):
    entered = asyncio.Event()

    async def big(request, deadline):
        entered.set()
        return v1.VersionResponse(version="x" * 10_000_000)

    async def main():
        methods = [unary("runtime.v1.RuntimeService", "Version", v1.VersionRequest, v1.VersionResponse, big)]
        async with serve(FakeCore(), methods) as client:
            peer = socket.socket(socket.AF_UNIX)
            peer.connect(str(client.path))
            connection = h2.connection.H2Connection()
            connection.initiate_connection()
            connection.increment_flow_control_window(2**30)
            connection.update_settings({4: 2**30})
            connection.send_headers(
                1,
                [
                    (":method", "POST"), (":scheme", "http"), (":authority", "localhost"),
                    (":path", "/runtime.v1.RuntimeService/Version"),
                    ("content-type", "application/grpc"), ("te", "trailers"),
                ],
            )  # fmt: skip
            connection.send_data(1, b"\0\0\0\0\0", end_stream=True)
            peer.sendall(connection.data_to_send())
            await asyncio.wait_for(entered.wait(), 10)
            assert await asyncio.wait_for(client.server.drain(0.05), 20) is False
            peer.close()

    asyncio.run(main())


def test_hundreds_of_waiting_calls_do_not_block_a_list(serve, stubs):
    async def main():
        core = FakeCore()
        core.sink.hold()
        async with serve(core) as client:
            waiting = [
                asyncio.ensure_future(client.runtime.StopPodSandbox(stop_request(stubs))) for _ in range(300)
            ]
            await asyncio.wait_for(client.bridge.was_asked(300), 30)
            await client.runtime.ListContainers(stubs.cri.ListContainersRequest(), timeout=10)
            core.sink.gate.set()
            await asyncio.gather(*waiting)

    asyncio.run(main())


def test_two_methods_with_one_path_are_a_mistake():
    async def run(request, deadline):
        raise AssertionError

    method = unary("a.B", "C", v1.VersionRequest, v1.VersionResponse, run)
    with pytest.raises(ValueError, match=r"/a\.B/C"):
        Server().serve([method, method])
