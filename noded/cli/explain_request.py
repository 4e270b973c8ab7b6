"""Explaining a saved request: the spec that this node would give it. Nothing runs, nothing is made."""

from __future__ import annotations

import argparse
import base64
import json
import posixpath
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from betterproto2 import Message

from noded import settings
from noded.cli.client import QUERY_SECONDS, Daemon, wait_for
from noded.config import Config, HandlerConfig
from noded.edge.cri.decode_container import container_config
from noded.edge.cri.decode_pod import pod_config
from noded.engine.devices import resolve_devices
from noded.errors import InvalidArgument, NodedError
from noded.host import facts as host_facts
from noded.model.container import ContainerConfig
from noded.model.image import ImageConfig
from noded.model.paths import Layout
from noded.model.pod import NamespaceMode, PodConfig, ProfileType
from noded.model.runtime import RuntimeFeatures
from noded.proto.noded.admin import v1 as admin
from noded.proto.runtime import v1
from noded.spec.annotations import STOP_SIGNAL
from noded.spec.base import parse_base_spec
from noded.spec.explain.case import Case
from noded.spec.explain.document import document as explanation
from noded.spec.explain.explain import explained
from noded.spec.inputs import (
    ContainerInputs,
    NamespacePaths,
    PodFiles,
    ResolvedDevice,
    ResolvedMount,
    ResolvedUser,
)
from noded.spec.policy import spec_policy
from noded.spec.process import parse_rlimits
from noded.spec.seccomp.profile import parse_profile
from noded.wire.manifest import image_config

Kind = TypeVar("Kind", bound=Message)

_POD = "SANDBOX_ID"  # what noded would choose
_CONTAINER = "CONTAINER_ID"
_FEATURES = RuntimeFeatures(
    recursive_read_only_mounts=True, user_namespaces=True, idmap_mounts=True, highest_oci_version="1.1.0"
)
_NOTES = (
    "nothing was asked of the runtime: it is taken to know runtime-spec 1.1.0",
    "users and groups are not looked up in an image; CDI devices, hooks, plugins and NRI were not asked",
)


def document(arguments: argparse.Namespace) -> dict[str, Any]:
    """Explain the request of `--request`.

    Raises: InvalidArgument naming the file and the field; what reading files and configuration raises.
    """
    container, pod = _request(Path(arguments.request), arguments.pod)
    config = settings.load(Path(arguments.config))
    handler = _handler(config, arguments.handler or config.default_runtime)
    notes = list(_NOTES)
    case = Case(
        _inputs(config, handler, pod, container, _image(arguments), notes),
        allowed_devices=config.allowed_devices,
        handler=handler.name,
        workloads=config.workloads,
        shared_cpuset=config.shared_cpuset,
    )
    subject = {"request": arguments.request, "handler": handler.name, "name": container.name}
    return explanation(subject, explained(case), notes=notes)


def _request(path: Path, pod: str) -> tuple[ContainerConfig, PodConfig]:
    """A CreateContainerRequest, or crictl's two files: a ContainerConfig and a PodSandboxConfig."""
    whole = _json(path)
    if "config" in whole:
        sandbox = whole.get("sandbox_config", whole.get("sandboxConfig", {}))
        container = whole["config"]
    else:
        if not pod:
            raise InvalidArgument(f"{path} is a ContainerConfig: give the PodSandboxConfig with --pod FILE")
        sandbox, container = _json(Path(pod)), whole
    metadata = {"name": "pod", "namespace": "default", "uid": "uid"}
    sandbox = {**sandbox, "metadata": {**metadata, **sandbox.get("metadata", {})}}
    for variable in container.get("envs", ()):
        # crictl writes the text itself; JSON of protobuf has bytes in base64.
        variable["value"] = base64.b64encode(str(variable.get("value", "")).encode()).decode()
    devices = container.pop("CDI_devices", container.pop("CDIDevices", []))
    decoded = _message(v1.ContainerConfig, container, path)
    decoded.CDI_devices = [v1.CdiDevice(name=one["name"]) for one in devices]
    return container_config(decoded), pod_config(_message(v1.PodSandboxConfig, sandbox, path))


def _message(kind: type[Kind], fields: dict[str, Any], path: Path) -> Kind:
    try:
        return kind.from_dict(fields)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise InvalidArgument(f"{path}: {error.args[0] if error.args else error}") from None


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidArgument(f"{path}: not JSON: {error}") from None
    if not isinstance(found, dict):
        raise InvalidArgument(f"{path}: not a JSON object")
    return found


def _handler(config: Config, name: str) -> HandlerConfig:
    for handler in config.runtimes:
        if handler.name == name:
            return handler
    known = ", ".join(handler.name for handler in config.runtimes)
    raise InvalidArgument(f"--handler {name}: the configuration has {known}")


def _image(arguments: argparse.Namespace) -> ImageConfig:
    """Of a file with an OCI image configuration, or of an image that the daemon has."""
    if not arguments.image:
        return ImageConfig()
    path = Path(arguments.image)
    if path.exists():
        return image_config(_json(path))
    known = wait_for(_inspect(arguments))
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in known.items()
    }
    return ImageConfig(**values)


async def _inspect(arguments: argparse.Namespace) -> dict[str, Any]:
    async with Daemon(arguments.address) as daemon:
        request = admin.InspectImageRequest(reference=arguments.image)
        timeout = QUERY_SECONDS if arguments.timeout is None else arguments.timeout
        reply = await daemon.admin("InspectImage", request, admin.InspectImageResponse, timeout)
    found: dict[str, Any] = json.loads(reply.json)["config"]
    return found


def _inputs(
    config: Config,
    handler: HandlerConfig,
    pod: PodConfig,
    container: ContainerConfig,
    image: ImageConfig,
    notes: list[str],
) -> ContainerInputs:
    facts = host_facts.collect(config)
    layout = Layout(config.root, config.state)
    directory = layout.pod(_POD)
    options = pod.namespaces
    key = f"runtimes.{handler.name}.seccomp_profile"
    default = (
        parse_profile(Path(handler.seccomp_profile).read_bytes(), key) if handler.seccomp_profile else None
    )
    base = parse_base_spec(Path(handler.base_spec).read_text()) if handler.base_spec else None
    policy = spec_policy(
        config,
        handler,
        parse_rlimits(config.default_ulimits, "default_ulimits"),
        default_seccomp=default,
        base=base,
    )
    return ContainerInputs(
        pod=pod,
        container=container,
        image=image,
        user=_user(container, image),
        host=facts,
        features=_FEATURES,
        sandbox_id=_POD,
        container_id=_CONTAINER,
        rootfs=str(layout.rootfs(_CONTAINER)),
        cgroups_path=posixpath.join(pod.cgroup_parent or "/", _CONTAINER),
        policy=replace(
            policy,
            allowed_annotations=handler.allowed_annotations,
            apparmor_profile=config.apparmor_profile if facts.apparmor else "",
        ),
        namespaces=NamespacePaths(
            net=str(layout.namespace_pin(_POD, "net")),
            ipc=str(layout.namespace_pin(_POD, "ipc")),
            uts=str(layout.namespace_pin(_POD, "uts")),
            user=str(layout.namespace_pin(_POD, "user")) if options.userns is not None else None,
        ),
        files=PodFiles(
            resolv_conf=str(directory / "resolv.conf"),
            hostname=str(directory / "hostname"),
            hosts=str(directory / "hosts"),
            shm="/dev/shm" if options.ipc is NamespaceMode.NODE else str(directory / "shm"),
            localtime=f"/usr/share/zoneinfo/{config.timezone}" if config.timezone else None,
        ),
        mounts=tuple(
            ResolvedMount(one, one.host_path or f"IMAGE:{one.image}", parent_shared=True, parent_slave=True)
            for one in container.mounts
        ),
        devices=_devices(container, notes),
        hostname=pod.hostname,
        log_path=posixpath.join(pod.log_directory, container.log_path) if container.log_path else "",
        stop_signal=container.stop_signal
        or image.stop_signal
        or image.annotations.get(STOP_SIGNAL, "")
        or "SIGTERM",
        seccomp_profile=_profile(container),
    )


def _user(container: ContainerConfig, image: ImageConfig) -> ResolvedUser:
    """What can be said without the image's files."""
    security = container.security
    name, _, group = image.user.partition(":")
    uid = int(name) if name.isdecimal() else 0
    uid = uid if security.run_as_user is None else security.run_as_user
    gid = int(group) if group.isdecimal() else 0
    gid = gid if security.run_as_group is None else security.run_as_group
    return ResolvedUser(uid, gid, tuple(sorted({gid, *security.supplemental_groups})))


def _devices(container: ContainerConfig, notes: list[str]) -> tuple[ResolvedDevice, ...]:
    try:
        return resolve_devices(container.devices)
    except NodedError as error:
        notes.append(f"devices are left out: {error}")
        return ()


def _profile(container: ContainerConfig) -> Any:
    choice = container.security.seccomp
    if choice is None or choice.type is not ProfileType.LOCALHOST:
        return None
    return parse_profile(Path(choice.localhost_ref).read_bytes(), choice.localhost_ref)
