"""Lists before the core is there: the same answers, made of stored requests."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import asynccontextmanager
from dataclasses import replace

import grpc
import grpc.aio
import pytest
from edge_fakes import FakeCore, container, sandbox
from edge_values import CONTAINER_CONFIGS, POD_CONFIGS, Encoder
from hypothesis import given
from hypothesis import strategies as st

from noded.edge import early
from noded.edge.codec import Codec
from noded.edge.cri import encode_container, encode_pod
from noded.edge.cri.decode_container import container_config_of
from noded.edge.cri.decode_pod import pod_config_of
from noded.edge.cri.services import cri_methods
from noded.edge.method import unary
from noded.edge.server import Server
from noded.host import sockets
from noded.model.lifecycle import ContainerIntent, SandboxIntent, container_state, sandbox_state
from noded.model.states import ContainerState, SandboxState
from noded.proto.runtime import v1
from noded.store.glance import ContainerRow, Glance, SandboxRow

codec = Codec()
BOOT = "this boot"
MOMENT = st.integers(1, 2**63 - 1)
POD_INTENTS = st.sampled_from([one for one in SandboxIntent if one.made])
CONTAINER_INTENTS = st.sampled_from([one for one in ContainerIntent if one.made])


def stored_pod(stubs, config, handler="kata"):
    request = stubs.cri.RunPodSandboxRequest(config=Encoder(stubs.cri).pod(config), runtime_handler=handler)
    return bytes(codec.decode(request.SerializeToString(), v1.RunPodSandboxRequest))


def stored_container(stubs, config):
    message = Encoder(stubs.cri).container(config)
    request = stubs.cri.CreateContainerRequest(pod_sandbox_id="p", config=message)
    return bytes(codec.decode(request.SerializeToString(), v1.CreateContainerRequest))


def pods_of(stubs, seen):
    answer = early.answers(seen, BOOT)[early.LIST_PODS]
    return stubs.cri.ListPodSandboxResponse.FromString(answer).items


def containers_of(stubs, seen):
    answer = early.answers(seen, BOOT)[early.LIST_CONTAINERS]
    return stubs.cri.ListContainersResponse.FromString(answer).containers


@given(config=POD_CONFIGS, intent=POD_INTENTS, created=MOMENT)
def test_a_sandbox_is_listed_as_the_core_lists_it(stubs, config, intent, created):
    request = stored_pod(stubs, config)
    row = SandboxRow("ab" * 32, "runc", request, created, intent.value, BOOT)
    view = replace(
        sandbox(),
        id=row.id,
        config=pod_config_of(request),
        state=sandbox_state(intent),
        created_at_ns=created,
    )
    (listed,) = pods_of(stubs, Glance((row,), ()))
    assert listed == stubs.cri.PodSandbox.FromString(bytes(encode_pod.entry(view)))


@given(config=CONTAINER_CONFIGS, intent=CONTAINER_INTENTS, created=MOMENT, exited=st.booleans())
def test_a_container_is_listed_as_the_core_lists_it(stubs, config, intent, created, exited):
    request = stored_container(stubs, config)
    row = ContainerRow("cd" * 32, "ab" * 32, request, created, intent.value, BOOT, "sha256:id", exited)
    view = replace(
        container(),
        id=row.id,
        sandbox_id=row.sandbox_id,
        config=container_config_of(request),
        state=container_state(intent, exited=exited),
        created_at_ns=created,
        image_id="sha256:id",
    )
    (listed,) = containers_of(stubs, Glance((), (row,)))
    assert listed == stubs.cri.Container.FromString(bytes(encode_container.entry(view)))


def test_what_an_earlier_boot_has_run_is_not_running(stubs):
    pod = SandboxRow("ab" * 32, "runc", b"", 1, SandboxIntent.READY.value, "another boot")
    one = ContainerRow(
        "cd" * 32, "ab" * 32, b"", 1, ContainerIntent.STARTED.value, "another boot", "i", False
    )
    seen = Glance((pod,), (one,))
    assert [each.state for each in pods_of(stubs, seen)] == [SandboxState.NOTREADY]
    assert [each.state for each in containers_of(stubs, seen)] == [ContainerState.EXITED]


def test_what_is_half_made_or_a_debt_is_not_listed(stubs):
    rows = tuple(SandboxRow(one.value, "runc", b"", 1, one.value, BOOT) for one in SandboxIntent)
    inside = tuple(
        ContainerRow(one.value, "p", b"", 1, one.value, BOOT, "i", False) for one in ContainerIntent
    )
    seen = Glance(rows, inside)
    assert [each.id for each in pods_of(stubs, seen)] == ["ready", "stopping", "stopped"]
    assert [each.id for each in containers_of(stubs, seen)] == ["created", "started", "removing"]


@asynccontextmanager
async def listening(stubs, tmp_path, known, **options):
    """A server that has no methods yet, and a client of it."""
    server, path = Server(known, **options), tmp_path / "s"
    await server.start(sockets.bind(path))
    channel = grpc.aio.insecure_channel(f"unix:{path}")
    try:
        yield server, stubs.cri_grpc.RuntimeServiceStub(channel), channel
    finally:
        await channel.close()
        await server.drain(0)


def known_pod(stubs):
    row = SandboxRow("ab" * 32, "runc", b"", 1, SandboxIntent.READY.value, BOOT)
    return early.answers(Glance((row,), ()), BOOT)


def test_lists_are_answered_at_once_and_everything_else_when_the_core_serves(stubs, tmp_path):
    async def main():
        async with listening(stubs, tmp_path, known_pod(stubs)) as (server, runtime, _):
            version = asyncio.ensure_future(runtime.Version(stubs.cri.VersionRequest(), timeout=20))
            wanted = stubs.cri.ListPodSandboxRequest(filter=stubs.cri.PodSandboxFilter(id="ab"))
            filtered = asyncio.ensure_future(runtime.ListPodSandbox(wanted, timeout=20))
            for filter_ in (None, stubs.cri.PodSandboxFilter()):
                request = stubs.cri.ListPodSandboxRequest(filter=filter_)
                answer = await runtime.ListPodSandbox(request, timeout=20)
                assert [one.id for one in answer.items] == ["ab" * 32]
            assert not (
                await runtime.ListContainers(stubs.cri.ListContainersRequest(), timeout=20)
            ).containers
            await server.heard(20)
            assert server.answered_early == 3
            assert not version.done()
            assert not filtered.done()
            server.serve(cri_methods(FakeCore([sandbox(0xAB), sandbox(2)]), None))
            assert (await version).runtime_name == "noded"
            assert [one.id for one in (await filtered).items] == ["ab" * 32]
            assert len((await runtime.ListPodSandbox(stubs.cri.ListPodSandboxRequest())).items) == 2
            assert server.answered_early == 3

    asyncio.run(main())


def test_a_call_that_gives_up_before_the_core_serves_leaves_nothing(stubs, tmp_path):
    async def main():
        async with listening(stubs, tmp_path, {}) as (server, runtime, _):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await runtime.Version(stubs.cri.VersionRequest(), timeout=0.1)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert await server.drain(20)

    asyncio.run(main())


@pytest.mark.parametrize("seconds", [None, 20])
def test_a_core_that_does_not_come_is_told_to_who_waits_for_it(stubs, tmp_path, seconds):
    async def main():
        async with listening(stubs, tmp_path, known_pod(stubs), held_seconds=0.1) as (_, runtime, _):
            wanted = stubs.cri.ListPodSandboxRequest(filter=stubs.cri.PodSandboxFilter(id="ab"))
            calls = [
                asyncio.ensure_future(runtime.Version(stubs.cri.VersionRequest(), timeout=seconds)),
                asyncio.ensure_future(runtime.ListPodSandbox(wanted, timeout=seconds)),
            ]
            done, _ = await asyncio.wait(calls, timeout=20)
            assert done == {*calls}
            for call in calls:
                error = call.exception()
                assert error.code() is grpc.StatusCode.UNAVAILABLE
                assert error.details() == "noded has been starting for 0.1 s: see its log, or try again"
            # What is known is known.
            assert (await runtime.ListPodSandbox(stubs.cri.ListPodSandboxRequest(), timeout=20)).items

    asyncio.run(main())


def test_a_deadline_that_passes_before_the_core_serves_is_answered_in_time(stubs, tmp_path):
    async def main():
        async with listening(stubs, tmp_path, {}) as (_, runtime, _):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await runtime.Version(stubs.cri.VersionRequest(), timeout=2)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert caught.value.details() == "noded was starting: ask again"

    asyncio.run(main())


def test_the_time_a_call_has_waited_is_part_of_its_deadline(stubs, tmp_path):
    async def main():
        async with listening(stubs, tmp_path, known_pod(stubs)) as (server, runtime, _):
            call = asyncio.ensure_future(runtime.Version(stubs.cri.VersionRequest(), timeout=20))
            other = asyncio.ensure_future(runtime.Status(stubs.cri.StatusRequest(), timeout=20))
            await runtime.ListPodSandbox(stubs.cri.ListPodSandboxRequest(), timeout=20)  # behind both
            loop = asyncio.get_running_loop()
            begun = loop.time()
            done, _ = await asyncio.wait({call, other}, timeout=0.2)
            assert not done
            left = []

            async def version(request, deadline):
                left.append(deadline.remaining_seconds())
                return v1.VersionResponse(runtime_name="late")

            methods = [
                unary("runtime.v1.RuntimeService", "Version", v1.VersionRequest, v1.VersionResponse, version)
            ]
            waited = loop.time() - begun
            server.serve(methods)
            assert (await call).runtime_name == "late"
            assert left[0] <= 20 - waited
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await other
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED

    asyncio.run(main())


def test_a_request_that_is_cut_off_is_refused_before_the_core_serves(stubs, tmp_path):
    async def main():
        async with listening(stubs, tmp_path, known_pod(stubs)) as (_, _, channel):
            bare = channel.unary_unary(early.LIST_PODS, request_serializer=lambda data: data)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await bare(b"\x00" * (17 * 2**20), timeout=20)
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED

    asyncio.run(main())


def test_what_listens_first_imports_next_to_nothing():
    """The first list after a restart waits for these imports, so nothing dear may creep in."""
    code = "import sys, noded.daemon.start; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = set(done.stdout.split())
    assert "grpclib.protocol" in loaded
    dear = ("trio", "structlog", "betterproto2", "noded.proto", "noded.config", "noded.engine", "ctypes")
    assert not loaded & {*dear}
