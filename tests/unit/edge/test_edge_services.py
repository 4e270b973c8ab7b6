"""Each RPC from a grpcio client to what the core is asked, and back."""

from __future__ import annotations

import asyncio
import base64
import csv
import json
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import grpc
import grpc.aio
import pytest
from edge_fakes import FakeCore, container, image, sandbox

from noded.edge.cri.services import cri_methods
from noded.engine.events import EventKind, Events
from noded.errors import NotFound
from noded.model.image import Credential
from noded.model.pod import Resources

TABLE = Path(__file__).parents[1] / "proto" / "cri-runtime-v1.tsv"
FULL = "01" * 32


def core():
    return FakeCore([sandbox(1), sandbox(2)], [container(1), container(2, pod=2)], [image(1), image(2)])


def rpcs():
    with TABLE.open() as lines:
        return [row for row in csv.DictReader(lines, delimiter="\t") if row["kind"] == "rpc"]


def test_every_method_of_the_table_is_served_with_its_types_and_nothing_else():
    served = {
        (
            method.path,
            f"runtime.v1.{method.request.__name__}",
            ("stream " if method.streaming else "") + f"runtime.v1.{method.response.__name__}",
        )
        for method in cri_methods(core(), None)
    }
    assert served == {
        (f"/{row['owner']}/{row['name']}", row["type"], row["label_or_reply"]) for row in rpcs()
    }


@pytest.mark.parametrize("row", rpcs(), ids=lambda row: row["name"])
def test_an_empty_request_gets_an_answer_and_never_a_defect(serve, row):
    async def main():
        async with serve(core()) as client:
            path = f"/{row['owner']}/{row['name']}"
            streaming = row["label_or_reply"].startswith("stream")
            method = client.channel.unary_stream if streaming else client.channel.unary_unary
            call = method(path)(b"")
            if row["name"] == "GetContainerEvents":  # goes on for ever
                await call.initial_metadata()
                assert not call.done()
                return
            with suppress(grpc.aio.AioRpcError):
                _ = [message async for message in call] if streaming else await call
            code, details = await call.code(), await call.details()
            answers = (grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED)
            assert code in answers
            assert code is grpc.StatusCode.OK or details

    asyncio.run(main())


def test_version_is_what_kubelet_demands(serve, stubs):
    async def main():
        async with serve(core()) as client:
            answer = await client.runtime.Version(stubs.cri.VersionRequest())
            assert (answer.version, answer.runtime_api_version) == ("0.1.0", "v1")
            assert (answer.runtime_name, answer.runtime_version) == ("noded", version("noded"))

    asyncio.run(main())


def test_status_waits_until_it_is_known_what_the_handlers_can_do(serve, stubs):
    async def main():
        fake = core()
        fake.node.known = False
        async with serve(fake) as client:
            call = asyncio.ensure_future(client.runtime.Status(stubs.cri.StatusRequest()))
            await client.runtime.Version(stubs.cri.VersionRequest())
            while not hasattr(fake.node, "told_when_known"):
                await client.runtime.Version(stubs.cri.VersionRequest())
            assert not call.done()
            fake.node.told_when_known()
            assert (await call).runtime_handlers
            # A client that cannot wait is told what is known.
            assert (await client.runtime.Status(stubs.cri.StatusRequest(), timeout=0.5)).status.conditions

    asyncio.run(main())


def test_status_has_the_conditions_and_the_default_handler_under_the_empty_name(serve, stubs):
    async def main():
        async with serve(core()) as client:
            answer = await client.runtime.Status(stubs.cri.StatusRequest())
            conditions = {item.type: item for item in answer.status.conditions}
            assert conditions["RuntimeReady"].status
            assert not conditions["NetworkReady"].status
            assert conditions["NetworkReady"].reason == "NoNetworkConfig"
            handlers = {item.name: item.features for item in answer.runtime_handlers}
            assert list(handlers) == ["", "runc", "kata"]
            assert handlers[""] == handlers["runc"]
            assert handlers["runc"].user_namespaces
            assert not handlers["kata"].recursive_read_only_mounts
            assert answer.features.supplemental_groups_policy
            assert not answer.info
            verbose = await client.runtime.Status(stubs.cri.StatusRequest(verbose=True))
            assert json.loads(verbose.info["info"]) == {"root": "/var/lib/noded"}

    asyncio.run(main())


@pytest.mark.parametrize(("driver", "expected"), [("systemd", "SYSTEMD"), ("cgroupfs", "CGROUPFS")])
def test_runtime_config_states_the_cgroup_driver(serve, stubs, driver, expected):
    async def main():
        node = core()
        node.node.cgroup_driver = driver
        async with serve(node) as client:
            answer = await client.runtime.RuntimeConfig(stubs.cri.RuntimeConfigRequest())
            assert answer.HasField("linux")  # SYSTEMD is 0: without the message kubelet keeps its own
            assert answer.linux.cgroup_driver == stubs.cri.CgroupDriver.Value(expected)

    asyncio.run(main())


def test_the_pod_cidr_reaches_the_node_and_an_empty_one_does_not(serve, stubs):
    async def main():
        async with serve(core()) as client:
            cri = stubs.cri
            network = cri.NetworkConfig(pod_cidr="10.1.0.0/24,fd00::/64")
            await client.runtime.UpdateRuntimeConfig(
                cri.UpdateRuntimeConfigRequest(runtime_config=cri.RuntimeConfig(network_config=network))
            )
            await client.runtime.UpdateRuntimeConfig(cri.UpdateRuntimeConfigRequest())
            (asked,) = client.bridge.asked
            assert (asked.name, asked.args) == ("update_pod_cidr", ("10.1.0.0/24,fd00::/64",))

    asyncio.run(main())


def test_a_sandbox_is_run_with_its_config_handler_and_verbatim_request(serve, stubs):
    async def main():
        async with serve(core()) as client:
            cri = stubs.cri
            request = cri.RunPodSandboxRequest(
                config=cri.PodSandboxConfig(
                    metadata=cri.PodSandboxMetadata(name="a", uid="u", namespace="n")
                ),
                runtime_handler="kata",
            )
            answer = await client.runtime.RunPodSandbox(request, timeout=60)
            assert answer.pod_sandbox_id == "f0" * 32
            (asked,) = client.bridge.asked
            config, handler, stored = asked.args
            assert (asked.name, config.key.name, handler) == ("run", "a", "kata")
            assert cri.RunPodSandboxRequest.FromString(stored) == request
            assert asked.detach
            assert 55 < asked.deadline_seconds <= 59.6

    asyncio.run(main())


def mutations(cri):
    """(service, method, request, what the core is asked, whether it goes on after the deadline)"""
    runtime, images = "runtime", "images"
    spec = cri.ImageSpec(image="docker.io/library/image:1")
    limits = cri.LinuxContainerResources(cpu_quota=7)
    return [
        (runtime, "StopPodSandbox", {"pod_sandbox_id": "0101"}, ("stop", (FULL,)), True),
        (runtime, "RemovePodSandbox", {"pod_sandbox_id": "0101"}, ("remove", (FULL,)), True),
        (runtime, "RemovePodSandbox", {"pod_sandbox_id": "unknown"}, ("remove", ("unknown",)), True),
        (
            runtime,
            "UpdatePodSandboxResources",
            {"pod_sandbox_id": "0101", "resources": limits},
            ("update_resources", (FULL, None, Resources(cpu_quota_us=7))),
            False,
        ),
        (runtime, "StartContainer", {"container_id": "0101"}, ("start", (FULL,)), True),
        (runtime, "StopContainer", {"container_id": "0101", "timeout": 30}, ("stop", (FULL, 30.0)), True),
        (runtime, "RemoveContainer", {"container_id": "0101"}, ("remove", (FULL,)), True),
        (runtime, "ReopenContainerLog", {"container_id": "0101"}, ("reopen_log", (FULL,)), False),
        (
            runtime,
            "UpdateContainerResources",
            {"container_id": "0101", "linux": limits, "annotations": {"a": "b"}},
            ("update", (FULL, Resources(cpu_quota_us=7), {"a": "b"})),
            False,
        ),
        (
            runtime,
            "UpdateContainerResources",
            {"container_id": "0101"},
            ("update", (FULL, Resources(), {})),
            False,
        ),
        (
            runtime,
            "ExecSync",
            {"container_id": "0101", "cmd": ["ls", "-l"], "timeout": 5},
            ("exec_sync", (FULL, ("ls", "-l"), 5.0)),
            False,
        ),
        (
            runtime,
            "ExecSync",
            {"container_id": "0101", "cmd": ["ls"]},
            ("exec_sync", (FULL, ("ls",), None)),
            False,
        ),
        (images, "PullImage", {"image": spec}, ("pull", (spec.image, None, "")), False),
        (images, "RemoveImage", {"image": spec}, ("remove", (spec.image,)), False),
        (images, "ImageFsInfo", {}, ("fs_info", ()), False),
    ]


def test_every_mutation_asks_the_core_for_exactly_this(serve, stubs):
    async def main():
        async with serve(core()) as client:
            for service, name, fields, expected, detach in mutations(stubs.cri):
                client.bridge.asked.clear()
                request = getattr(stubs.cri, f"{name}Request")(**fields)
                await getattr(getattr(client, service), name)(request, timeout=60)
                (asked,) = client.bridge.asked
                assert (asked.name, asked.args) == expected, name
                assert asked.detach is detach, name
                assert asked.deadline_seconds is not None, name

    asyncio.run(main())


def test_a_container_is_created_in_the_sandbox_that_a_short_id_names(serve, stubs):
    async def main():
        async with serve(core()) as client:
            cri = stubs.cri
            request = cri.CreateContainerRequest(
                pod_sandbox_id="0202",
                config=cri.ContainerConfig(
                    metadata=cri.ContainerMetadata(name="c", attempt=2), image=cri.ImageSpec(image="busybox")
                ),
            )
            answer = await client.runtime.CreateContainer(request)
            assert answer.container_id == "f1" * 32
            (asked,) = client.bridge.asked
            pod, config, stored = asked.args
            assert (pod, config.name, config.attempt, asked.detach) == ("02" * 32, "c", 2, True)
            assert cri.CreateContainerRequest.FromString(stored) == request

    asyncio.run(main())


def test_exec_returns_code_and_raw_output(serve, stubs):
    async def main():
        async with serve(core()) as client:
            answer = await client.runtime.ExecSync(stubs.cri.ExecSyncRequest(container_id="01", cmd=["x"]))
            assert (answer.exit_code, answer.stdout, answer.stderr) == (3, b"out\xff", b"err")

    asyncio.run(main())


@pytest.mark.parametrize(
    ("service", "name", "fields", "words"),
    [
        ("runtime", "StopPodSandbox", {}, "pod_sandbox_id: must not be empty"),
        ("runtime", "PodSandboxStatus", {}, "pod_sandbox_id: must not be empty"),
        ("runtime", "ContainerStatus", {}, "container_id: must not be empty"),
        ("runtime", "StopContainer", {"container_id": "01", "timeout": -1}, "timeout: -1 is negative"),
        ("runtime", "ExecSync", {"container_id": "01"}, "cmd: must not be empty"),
        (
            "runtime",
            "ExecSync",
            {"container_id": "01", "cmd": ["x"], "timeout": -1},
            "timeout: -1 is negative",
        ),
        ("images", "ImageStatus", {}, "image: is missing"),
        ("images", "PullImage", {"image": {}}, "image.image: must not be empty"),
    ],
)
def test_a_bad_request_is_refused_by_field_before_the_core_is_asked(
    serve, stubs, service, name, fields, words
):
    async def main():
        async with serve(core()) as client:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await getattr(getattr(client, service), name)(getattr(stubs.cri, f"{name}Request")(**fields))
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert caught.value.details() == words
            assert client.bridge.asked == []

    asyncio.run(main())


def test_reads_do_not_cross_the_bridge(serve, stubs):
    async def main():
        async with serve(core()) as client:
            cri = stubs.cri
            pods = await client.runtime.ListPodSandbox(cri.ListPodSandboxRequest())
            assert [pod.metadata.name for pod in pods.items] == ["pod1", "pod2"]
            one = cri.ContainerFilter(pod_sandbox_id="02" * 32)
            found = await client.runtime.ListContainers(cri.ListContainersRequest(filter=one))
            assert [item.metadata.name for item in found.containers] == ["c2"]
            images = await client.images.ListImages(cri.ListImagesRequest())
            assert [item.size for item in images.images] == [1001, 1002]
            pod = await client.runtime.PodSandboxStatus(cri.PodSandboxStatusRequest(pod_sandbox_id="01"))
            assert (pod.status.id, pod.status.network.ip, pod.status.runtime_handler) == (
                FULL,
                "10.0.0.1",
                "runc",
            )
            status = await client.runtime.ContainerStatus(cri.ContainerStatusRequest(container_id="01"))
            assert status.status.image.image == "docker.io/library/busybox:1"
            shown = await client.images.ImageStatus(
                cri.ImageStatusRequest(image=cri.ImageSpec(image="docker.io/library/image:1"))
            )
            assert (shown.image.uid.value, shown.image.spec.image) == (1000, shown.image.id)
            assert client.bridge.asked == []

    asyncio.run(main())


def test_verbose_statuses_carry_json(serve, stubs):
    async def main():
        async with serve(core()) as client:
            cri = stubs.cri
            pod = await client.runtime.PodSandboxStatus(
                cri.PodSandboxStatusRequest(pod_sandbox_id="01", verbose=True)
            )
            assert json.loads(pod.info["info"]) == {"pid": 101, "netns": "/run/netns/x"}
            ctr = await client.runtime.ContainerStatus(
                cri.ContainerStatusRequest(container_id="01", verbose=True)
            )
            assert json.loads(ctr.info["info"])["sandboxID"] == FULL
            spec = cri.ImageSpec(image="docker.io/library/image:1")
            shown = await client.images.ImageStatus(cri.ImageStatusRequest(image=spec, verbose=True))
            assert json.loads(shown.info["info"])["config"]["env"] == ["A=b"]

    asyncio.run(main())


def test_what_is_not_there_is_not_found_but_an_absent_image_is_an_empty_answer(serve, stubs):
    async def main():
        async with serve(core()) as client:
            for call in (
                client.runtime.PodSandboxStatus(stubs.cri.PodSandboxStatusRequest(pod_sandbox_id="ff")),
                client.runtime.ContainerStatus(stubs.cri.ContainerStatusRequest(container_id="ff")),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call
                assert caught.value.code() is grpc.StatusCode.NOT_FOUND
            spec = stubs.cri.ImageSpec(image="docker.io/library/absent:1")
            answer = await client.images.ImageStatus(stubs.cri.ImageStatusRequest(image=spec, verbose=True))
            assert not answer.HasField("image")

    asyncio.run(main())


def test_streamed_lists_hold_the_same_entries_as_the_unary_ones(serve, stubs):
    async def collect(stream, field):
        return [item for message in [message async for message in stream] for item in getattr(message, field)]

    async def main():
        many = FakeCore(
            [sandbox(n) for n in range(1, 60)], [container(n) for n in range(1, 60)], [image(1), image(2)]
        )
        async with serve(many) as client:
            cri = stubs.cri
            pods = await collect(
                client.runtime.StreamPodSandboxes(cri.StreamPodSandboxesRequest()), "pod_sandboxes"
            )
            assert pods == list((await client.runtime.ListPodSandbox(cri.ListPodSandboxRequest())).items)
            wanted = cri.ContainerFilter(label_selector={"app": "a7"})
            ctrs = await collect(
                client.runtime.StreamContainers(cri.StreamContainersRequest(filter=wanted)), "containers"
            )
            assert [item.metadata.name for item in ctrs] == ["c7"]
            images = await collect(client.images.StreamImages(cri.StreamImagesRequest()), "images")
            assert len(images) == 2
            nothing = cri.ContainerFilter(id="absent")
            assert (
                await collect(
                    client.runtime.StreamContainers(cri.StreamContainersRequest(filter=nothing)), "x"
                )
                == []
            )

    asyncio.run(main())


def basic(text):
    return base64.b64encode(text).decode()


@pytest.mark.parametrize(
    ("auth", "expected"),
    [
        ({}, None),
        ({"server_address": "r.example"}, None),
        ({"username": "u", "password": "p"}, Credential("u", "p")),
        ({"auth": basic(b"u:p:q")}, Credential("u", "p:q")),
        ({"auth": basic(b"u:p\0\0")}, Credential("u", "p")),
        ({"username": "u", "password": "p", "auth": basic(b"x:y")}, Credential("u", "p")),
        ({"identity_token": "t"}, Credential(identity_token="t")),
        ({"registry_token": "t"}, Credential(registry_token="t")),
    ],
)
def test_a_pull_passes_its_credential_and_namespace(serve, stubs, auth, expected):
    async def main():
        async with serve(core()) as client:
            cri = stubs.cri
            pod = cri.PodSandboxConfig(metadata=cri.PodSandboxMetadata(name="a", namespace="team"))
            answer = await client.images.PullImage(
                cri.PullImageRequest(
                    image=cri.ImageSpec(image="r.example/a:1"),
                    auth=cri.AuthConfig(**auth),
                    sandbox_config=pod,
                )
            )
            assert answer.image_ref == "sha256:" + "f2" * 32
            assert client.bridge.asked[0].args == ("r.example/a:1", expected, "team")

    asyncio.run(main())


@pytest.mark.parametrize("text", ["geheim!", basic(b"no-colon"), basic(b"\xff:\xff")])
def test_a_bad_auth_string_is_refused_without_being_repeated(serve, stubs, text):
    async def main():
        async with serve(core()) as client:
            request = stubs.cri.PullImageRequest(
                image=stubs.cri.ImageSpec(image="a"), auth=stubs.cri.AuthConfig(auth=text)
            )
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.images.PullImage(request)
            assert caught.value.details() == "auth.auth: is not base64 of username:password"

    asyncio.run(main())


def test_a_credential_does_not_show_its_secrets():
    assert "hidden" not in repr(Credential("user", "hidden", "hidden", "hidden"))


def test_image_filesystems_are_reported_for_images_and_containers(serve, stubs):
    async def main():
        async with serve(core()) as client:
            answer = await client.images.ImageFsInfo(stubs.cri.ImageFsInfoRequest())
            for usage in (*answer.image_filesystems, *answer.container_filesystems):
                assert (usage.fs_id.mountpoint, usage.used_bytes.value) == ("/var/lib/noded", 123)
                assert (usage.inodes_used.value, usage.timestamp) == (45, 678)
            assert len(answer.container_filesystems) == 1

    asyncio.run(main())


def test_admin_loads_and_saves_images(serve, stubs):
    async def main():
        async with serve(core()) as client:
            loaded = await client.admin.LoadImage(stubs.admin.LoadImageRequest(path="/x.tar"))
            assert loaded.images[0].id == image(7).id
            assert loaded.images[0].references[0] == "docker.io/library/image:7"
            await client.admin.SaveImage(
                stubs.admin.SaveImageRequest(references=["a", "b"], path="/y.tar", format=stubs.admin.DOCKER)
            )
            assert [(asked.name, asked.args) for asked in client.bridge.asked] == [
                ("load", ("/x.tar",)),
                ("save", (("a", "b"), "/y.tar", "docker")),
            ]
            for call in (
                client.admin.LoadImage(stubs.admin.LoadImageRequest(path="x.tar")),
                client.admin.SaveImage(stubs.admin.SaveImageRequest(path="/y")),
                client.admin.SaveImage(stubs.admin.SaveImageRequest(references=["a"], path="/y", format=9)),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call
                assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    asyncio.run(main())


def test_admin_lists_debts_oldest_first_and_forgives_one(serve, stubs):
    async def main():
        node = core()
        node.sink.results["forgive"] = "d1"
        async with serve(node) as client:
            debts = (await client.admin.ListDebts(stubs.admin.ListDebtsRequest())).debts
            assert [(debt.id, debt.tries, debt.last_error, debt.next_try_ns) for debt in debts] == [
                ("d1", 1, "x", 70),
                ("d2", 3, "no plugin", 0),
            ]
            forgiven = await client.admin.ForgiveDebt(stubs.admin.ForgiveDebtRequest(id="d"))
            assert forgiven.id == "d1"
            assert client.bridge.asked[0].args == ("d",)
            node.sink.error = NotFound("no debt d9")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.admin.ForgiveDebt(stubs.admin.ForgiveDebtRequest(id="d9"))
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND
            info = await client.admin.Info(stubs.admin.InfoRequest())
            assert json.loads(info.json) == {"root": "/var/lib/noded"}

    asyncio.run(main())


def test_a_client_that_reads_no_events_is_cut_off_and_told_so(serve, stubs):
    async def main():
        fake = core()
        pod = fake.sandboxes.view("01")
        fake.events = Events(lambda _: fake.containers.views(), capacity=4)
        async with serve(fake) as client:
            call = client.runtime.GetContainerEvents(stubs.cri.GetEventsRequest())
            await call.initial_metadata()
            for _ in range(5):  # the edge has no turn in between
                fake.events.publish(EventKind.STOPPED, pod)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                _ = [event async for event in call]
            assert caught.value.code() is grpc.StatusCode.ABORTED
            assert "list pods and containers, then subscribe again" in caught.value.details()
            again = client.runtime.GetContainerEvents(stubs.cri.GetEventsRequest())
            await again.initial_metadata()
            fake.events.publish(EventKind.DELETED, pod, fake.containers.view("01"))
            event = await again.read()
            assert event.container_id == "01" * 32
            assert event.container_event_type == stubs.cri.CONTAINER_DELETED_EVENT
            assert event.pod_sandbox_status.metadata.uid == "uid1"
            assert [one.id for one in event.containers_statuses] == ["02" * 32, "01" * 32]
            again.cancel()

    asyncio.run(main())
