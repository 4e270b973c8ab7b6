"""Explaining a saved request: the spec that this node would give it. Nothing runs, nothing is made."""

from __future__ import annotations

import argparse
import base64
import json
from pathlib import Path
from typing import Any, TypeVar

import trio
from betterproto2 import Message

from noded import logs, settings
from noded.cli.client import Daemon, query_seconds, wait_for
from noded.cli.explain_node import OnThisNode
from noded.config import Config, HandlerConfig
from noded.edge.cri.decode_container import container_config
from noded.edge.cri.decode_pod import pod_config
from noded.errors import InvalidArgument
from noded.model.container import ContainerConfig
from noded.model.image import ImageConfig
from noded.model.pod import PodConfig
from noded.proto.noded.admin import v1 as admin
from noded.proto.runtime import v1
from noded.spec.explain.case import build
from noded.spec.explain.document import document as explanation
from noded.spec.explain.explain import Explained, explained
from noded.spec.explain.stages import after_stages
from noded.spec.sysctls import pod_sysctls
from noded.wire.manifest import image_config

Kind = TypeVar("Kind", bound=Message)


def document(arguments: argparse.Namespace) -> dict[str, Any]:
    """Explain the request of `--request`.

    Raises: InvalidArgument naming the file and the field; what reading files and configuration raises.
    """
    logs.setup("error", "console")  # what would be a warning is among the notes
    container, pod = _request(Path(arguments.request), arguments.pod)
    config = settings.load(Path(arguments.config))
    handler = _handler(config, arguments.handler or config.default_runtime)
    notes: list[str] = []
    node = OnThisNode(config, handler, pod, container, _image(arguments), notes)

    async def explain() -> list[Explained]:
        case = await node.case()
        changes = await node.changes(build(case))
        return after_stages(explained(case), changes)

    found = trio.run(explain)
    subject = {"request": arguments.request, "handler": handler.name, "name": container.name}
    sysctls = pod_sysctls(config.default_sysctls, handler.default_sysctls, pod)
    return explanation(subject, found, notes=notes, pod_sysctls=sysctls)


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
        timeout = query_seconds(arguments.timeout)
        reply = await daemon.admin("InspectImage", request, admin.InspectImageResponse, timeout)
    found: dict[str, Any] = json.loads(reply.json)["config"]
    return found
