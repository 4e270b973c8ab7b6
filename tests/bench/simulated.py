"""A node of any size without a node: the real store, objects, encoders and parsers over a fake host.

What a pod's life costs beside the programs it runs is exactly this: rows, views, encoded entries.
Nothing is mounted, no process is started; cgroup files are texts as kernels write them.
"""

from __future__ import annotations

from pathlib import Path

from noded.edge.cri import encode_container, encode_image, encode_pod, stats_wire
from noded.edge.cri.decode_container import container_config_of
from noded.edge.cri.decode_pod import pod_config_of
from noded.edge.cri.entries import Entries
from noded.engine.container import Container
from noded.engine.events import Events
from noded.engine.registry import Registry
from noded.engine.samples import ContainerSample
from noded.engine.sandbox import PodSandbox
from noded.host.cgroup_stats import usage_v2
from noded.model.container import ContainerKey
from noded.model.image import Image, ImageConfig, LayerRef
from noded.model.lifecycle import ContainerIntent, SandboxIntent
from noded.model.network import Attachment, AttachmentResult
from noded.model.records import ContainerRecord, SandboxRecord
from noded.proto.runtime import v1
from noded.store.containers import ContainerRows
from noded.store.database import Database
from noded.store.images import ImageRows
from noded.store.images import decode as decode_image
from noded.store.sandboxes import SandboxRows
from noded.store.schema import MIGRATIONS
from noded.wire.messages import encode
from noded.wire.protobuf import record

_CGROUP = {
    "cpu.stat": b"usage_usec 5123456\nuser_usec 4000000\nsystem_usec 1123456\nnr_periods 100\n",
    "memory.current": b"52428800\n",
    "memory.max": b"67108864\n",
    "memory.stat": b"anon 31457280\nfile 20971520\nkernel 1048576\npgfault 1234\npgmajfault 56\n"
    b"inactive_anon 0\nactive_anon 31457280\ninactive_file 10485760\nactive_file 10485760\n",
    "memory.swap.current": b"0\n",
    "memory.swap.max": b"max\n",
    "pids.current": b"12\n",
}


class SimulatedNode:
    """Pods with one container each, and images, in a database of their own."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.images: list[Image] = []
        self.image_entries = Entries(encode_image.entry)

    async def open(self) -> None:
        """Open the store as after a restart: what `load` finds is what was committed."""
        self._database = await Database.open(self._path, MIGRATIONS)
        self._sandbox_rows = SandboxRows(self._database, pod_config_of)
        self._container_rows = ContainerRows(self._database, container_config_of)
        self._image_rows = ImageRows(self._database)
        self._events = Events(lambda sandbox_id: ())
        self.registry = Registry()
        self.pods = Entries(encode_pod.entry)
        self.containers = Entries(encode_container.entry)

    async def close(self) -> None:
        await self._database.close()

    async def load(self) -> None:
        """Fill memory from the database, as the daemon does before its first answer."""
        for row in await self._sandbox_rows.load():
            self.registry.add_sandbox(PodSandbox(self._sandbox_rows, row, self._events))
        sandboxes = {one.id: one for one in self.registry.sandboxes()}
        for row in await self._container_rows.load():
            sandbox = sandboxes[row.key.sandbox_id]
            self.registry.add_container(
                Container(self._container_rows, row, sandbox, Path("/none"), self._events)
            )
        rows, _ = await self._image_rows.load()
        self.images = [decode_image(text) for text in rows.values()]

    async def create_pod(self, number: int) -> None:
        """Every commit of a pod's start, with a CNI result and requests of real size."""
        request = _pod_request(number)
        config = pod_config_of(request)
        pod_id = f"{number:064x}"
        record = SandboxRecord(
            pod_id, config.key, "runc", request, config, number + 1, "boot", SandboxIntent.CREATING
        )
        sandbox = PodSandbox(self._sandbox_rows, record, self._events)
        await self._sandbox_rows.insert(record)
        self.registry.add_sandbox(sandbox)
        netns = f"/run/netns/{pod_id}"
        await sandbox.commit(attachments=(Attachment(pod_id, netns, "eth0", "net", {"plugins": []}, (), {}),))
        address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        raw = {"cniVersion": "1.0.0", "ips": [{"address": f"{address}/24"}], "interfaces": [{"name": "eth0"}]}
        await sandbox.commit(results=(AttachmentResult(raw, (address,)),))
        await sandbox.commit(intent=SandboxIntent.READY, complete=True)
        await self._create_container(sandbox, number)

    async def _create_container(self, sandbox: PodSandbox, number: int) -> None:
        request = _container_request(sandbox.id)
        config = container_config_of(request)
        record = ContainerRecord(
            f"{number + (1 << 40):064x}", ContainerKey(sandbox.id, config.name, 0), request, config,
            number + 1, "boot", ContainerIntent.CREATING, "sha256:" + "ab" * 32,
        )  # fmt: skip
        container = Container(self._container_rows, record, sandbox, Path("/none"), self._events)
        await self._container_rows.insert(record)
        self.registry.add_container(container)
        await container.commit(pid=number + 1, intent=ContainerIntent.CREATED)
        await container.commit(intent=ContainerIntent.STARTED, started_at_ns=number + 1)

    async def add_images(self, first: int, count: int) -> None:
        """Images of eight layers."""
        made = [_image(number) for number in range(first, first + count)]
        await self._image_rows.change(made)
        self.images += made

    # what the edge answers

    def list_pods(self) -> bytes:
        return self.pods.message(one.view for one in self.registry.sandboxes() if one.visible)

    def list_containers(self) -> bytes:
        return self.containers.message(one.view for one in self.registry.containers() if one.visible)

    def list_images(self) -> bytes:
        return self.image_entries.message(self.images)

    def container_status(self, number: int) -> bytes:
        view = self.registry.container(f"{number + (1 << 40):064x}").view
        status = encode_container.status(view, lambda reference: reference)
        return encode(v1.ContainerStatusResponse(status=status))

    def list_stats(self) -> bytes:
        """ListContainerStats: parse the accounting files of every container, encode the answer."""
        records = []
        for number, one in enumerate(self.registry.containers()):
            usage = usage_v2(lambda controller, name: _CGROUP.get(name), number, number)
            sample = ContainerSample(one.view, usage, 1)
            records.append(record(1, stats_wire.container(sample, b"\x0a\x02id", b"/var")))
        return b"".join(records)


def _pod_request(number: int) -> bytes:
    name = f"web-{number}"
    metadata = v1.PodSandboxMetadata(name=name, uid=f"uid-{number}", namespace="default", attempt=0)
    labels = {
        "app": name, "tier": "front", "io.kubernetes.pod.name": name,
        "io.kubernetes.pod.namespace": "default", "io.kubernetes.pod.uid": f"uid-{number}",
    }  # fmt: skip
    config = v1.PodSandboxConfig(
        metadata=metadata,
        hostname=name,
        log_directory=f"/var/log/pods/{name}",
        labels=labels,
        annotations={"kubernetes.io/config.seen": "2026-01-01T00:00:00Z"},
        linux=v1.LinuxPodSandboxConfig(
            cgroup_parent=f"/kubepods/{name}",
            security_context=v1.LinuxSandboxSecurityContext(namespace_options=v1.NamespaceOption()),
        ),
    )
    return bytes(v1.RunPodSandboxRequest(config=config, runtime_handler="runc"))


def _container_request(pod_id: str) -> bytes:
    config = v1.ContainerConfig(
        metadata=v1.ContainerMetadata(name="main"),
        image=v1.ImageSpec(image="sha256:" + "ab" * 32, user_specified_image="registry.example/web:1"),
        envs=[v1.KeyValue(key=f"SERVICE_{index}", value=b"10.0.0.1") for index in range(20)],
        mounts=[
            v1.Mount(container_path=f"/mnt/{index}", host_path=f"/var/lib/kubelet/pods/{index}")
            for index in range(4)
        ],
        labels={"io.kubernetes.container.name": "main", "io.kubernetes.pod.namespace": "default"},
        annotations={"io.kubernetes.container.hash": "deadbeef"},
        log_path="main/0.log",
        linux=v1.LinuxContainerConfig(
            resources=v1.LinuxContainerResources(cpu_shares=100, memory_limit_in_bytes=1 << 28),
            security_context=v1.LinuxContainerSecurityContext(namespace_options=v1.NamespaceOption()),
        ),
    )
    return bytes(v1.CreateContainerRequest(pod_sandbox_id=pod_id, config=config))


def _image(number: int) -> Image:
    digest = f"sha256:{number:064x}"
    layers = tuple(LayerRef(digest, digest, digest, 1 << 20, "tar+gzip") for _ in range(8))
    return Image(
        id=digest,
        manifest_digest=digest,
        tags=(f"registry.example/app:{number}",),
        digests=(f"registry.example/app@{digest}",),
        size_bytes=1 << 28,
        layers=layers,
        config=ImageConfig(env=("PATH=/bin",), user="1000"),
    )
