"""CRI-O's HTTP API, as far as cAdvisor inside kubelet asks for it.

cAdvisor knows runtimes by name. Of CRI-O it asks GET /info once, when kubelet starts, and
GET /containers/ID for every cgroup crio-ID that appears; it reads the network of the process that is
told for the container named POD. (google/cadvisor container/crio: client.go, factory.go, handler.go.)
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

from noded.config import Config
from noded.edge.cri.core import Containers, Sandboxes
from noded.edge.http_get import REQUEST_BYTES, HttpGet, Reply
from noded.errors import NotFound, Unavailable
from noded.model.views import ContainerView, SandboxView

log = structlog.get_logger(__name__)

_JSON = "application/json"
_CONTAINER = re.compile(r"/containers/([0-9a-f]{64})")
_NAME_LABEL = "io.kubernetes.container.name"
_CONNECT_SECONDS = 1.0
# cAdvisor asks for every container of the node at once when kubelet starts, each on a connection.
_MOST_CLIENTS = 512


class CadvisorServer:
    """Serves what cAdvisor asks for, from memory.

    Args:
        config: of which `compat` says where.
    """

    def __init__(self, config: Config, sandboxes: Sandboxes, containers: Containers) -> None:
        self._path = config.compat.cadvisor_socket
        self._info = {
            # cAdvisor believes "overlay" to be laid out as by containers/storage and measures DIR/diff, which
            # is not here. Of a driver that it does not know it leaves the disk usage to the CRI.
            "storage_driver": f"noded-{config.images.storage_driver}",
            "storage_root": str(config.root),
            "storage_image": str(config.images.root or ""),
        }
        self._sandboxes = sandboxes
        self._containers = containers
        self._http = HttpGet("cadvisor", self.reply, _MOST_CLIENTS)
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen. Raises: Unavailable when that cannot be, also because CRI-O itself is there."""
        try:
            self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            if await asyncio.to_thread(_answers, self._path):
                raise Unavailable(f"compat.cadvisor_socket: another program listens on {self._path}: stop it")
            with suppress(FileNotFoundError):
                os.unlink(self._path)
            self._server = await asyncio.start_unix_server(
                self._http.accept, self._path, limit=REQUEST_BYTES, backlog=_MOST_CLIENTS
            )
            os.chmod(self._path, 0o600)
        except OSError as error:
            raise Unavailable(
                f"compat.cadvisor_socket: cannot listen on {self._path}: {error.strerror or error}"
            ) from None
        log.info("cAdvisor served", socket=str(self._path))

    async def close(self) -> None:
        """Stop listening and end connections. Idempotent."""
        if self._server is not None:
            self._server.close()
            self._server = None
            with suppress(OSError):
                os.unlink(self._path)
        await self._http.close()

    def reply(self, path: str) -> Reply:
        """Answer one request."""
        if path == "/info":
            return Reply(200, json.dumps(self._info), _JSON)
        found = _CONTAINER.fullmatch(path)
        if found is None:
            return Reply(404, f"no such path: {path}\n")
        try:
            return Reply(200, json.dumps(self._container(found[1])), _JSON)
        except NotFound:
            return Reply(404, f"can't find the container with id {found[1]}\n")

    def _container(self, identity: str) -> dict[str, Any]:
        # The cgroup is seen before the creation has ended. A pid that is 0 still is asked for again; what is
        # not found is not, for a minute.
        try:
            return self._of_container(self._containers.peek(identity))
        except NotFound:
            return self._of_sandbox(self._sandboxes.peek(identity))

    def _of_container(self, view: ContainerView) -> dict[str, Any]:
        pod = self._sandboxes.peek(view.sandbox_id)
        bundle = dict(view.info).get("bundle", "")
        return {
            "name": _name(view.config.name, pod, view.config.attempt),
            "pid": view.pid,
            "image": view.config.user_specified_image or view.config.image,
            "created_time": view.created_at_ns,
            "labels": dict(view.config.labels),
            "annotations": dict(view.config.annotations),
            "log_path": view.log_path,
            "root": f"{bundle}/rootfs" if bundle else "",
            **_addresses(pod),
        }

    def _of_sandbox(self, view: SandboxView) -> dict[str, Any]:
        return {
            "name": _name("POD", view, view.config.key.attempt),
            # A pod on the node's network has no network of its own to measure.
            "pid": 0 if view.config.host_network else view.pid,
            "image": "",
            "created_time": view.created_at_ns,
            "labels": {**view.config.labels, _NAME_LABEL: "POD"},
            "annotations": dict(view.config.annotations),
            "log_path": "",
            "root": "",
            **_addresses(view),
        }


def _addresses(pod: SandboxView) -> dict[str, Any]:
    return {"ip_address": pod.ips[0] if pod.ips else "", "ip_addresses": list(pod.ips)}


def _name(container: str, pod: SandboxView, attempt: int) -> str:
    """What Kubernetes called containers in Docker, and CRI-O still does."""
    key = pod.config.key
    return f"k8s_{container}_{key.name}_{key.namespace}_{key.uid}_{attempt}"


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_CONNECT_SECONDS)
        try:
            probe.connect(str(path))
        except TimeoutError:
            return True
        except OSError:
            return False
        return True
