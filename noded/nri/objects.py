"""Pods and containers as plugins see them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from noded.model.records import ContainerRecord, SandboxRecord
from noded.model.states import ContainerState
from noded.model.views import ContainerView, SandboxView
from noded.nri.limits import from_cri, from_oci
from noded.proto.nri.pkg.api import v1alpha1 as api

_STATES: Final = {
    ContainerState.CREATED: api.ContainerState.CONTAINER_CREATED,
    ContainerState.RUNNING: api.ContainerState.CONTAINER_RUNNING,
    ContainerState.EXITED: api.ContainerState.CONTAINER_STOPPED,
    ContainerState.UNKNOWN: api.ContainerState.CONTAINER_UNKNOWN,
}
_HOOKS: Final = {
    "prestart": "prestart",
    "createRuntime": "create_runtime",
    "createContainer": "create_container",
    "startContainer": "start_container",
    "poststart": "poststart",
    "poststop": "poststop",
}


def pod_sandbox(
    record: SandboxRecord, view: SandboxView, namespaces: Mapping[str, str], pid: int
) -> api.PodSandbox:
    """A pod sandbox.

    Args:
        namespaces: kinds and paths of its namespaces.
        pid: of a process in them, 0 = none.
    """
    config = record.config
    return api.PodSandbox(
        id=record.id,
        name=record.key.name,
        uid=record.key.uid,
        namespace=record.key.namespace,
        labels=dict(config.labels),
        annotations=dict(config.annotations),
        runtime_handler=record.handler,
        linux=api.LinuxPodSandbox(
            pod_overhead=from_cri(record.overhead),
            pod_resources=from_cri(record.resources),
            cgroup_parent=config.cgroup_parent,
            namespaces=[api.LinuxNamespace(type=kind, path=path) for kind, path in namespaces.items()],
        ),
        pid=pid,
        ips=list(view.ips),
    )


def container(
    record: ContainerRecord,
    view: ContainerView,
    spec: Mapping[str, Any],
    *,
    image_name: str,
    image_digest: str,
) -> api.Container:
    """A container.

    Args:
        spec: its OCI spec, empty when there is none (any more).
    """
    process, linux = spec.get("process", {}), spec.get("linux", {})
    user = process.get("user", {})
    return api.Container(
        id=record.id,
        pod_sandbox_id=record.key.sandbox_id,
        name=record.key.name,
        state=_STATES[view.state],
        labels=dict(record.config.labels),
        annotations=dict(spec.get("annotations", record.config.annotations)),
        args=list(process.get("args", ())),
        env=list(process.get("env", ())),
        mounts=[
            api.Mount(
                destination=mount["destination"],
                type=mount.get("type", ""),
                source=mount.get("source", ""),
                options=list(mount.get("options", ())),
            )
            for mount in spec.get("mounts", ())
        ],
        hooks=api.Hooks(
            **{
                name: [_hook(one) for one in spec.get("hooks", {}).get(key, ())]
                for key, name in _HOOKS.items()
            }
        ),
        linux=_linux(process, linux),
        pid=view.pid,
        rlimits=[
            api.PosixRlimit(type=one["type"], hard=one["hard"], soft=one["soft"])
            for one in process.get("rlimits", ())
        ],
        created_at=record.created_at_ns,
        started_at=view.started_at_ns,
        finished_at=view.finished_at_ns,
        exit_code=view.exit_code,
        status_reason=view.reason,
        status_message=view.message,
        CDI_devices=[api.CdiDevice(name=name) for name in record.config.cdi_devices],
        user=api.User(
            uid=user.get("uid", 0),
            gid=user.get("gid", 0),
            additional_gids=list(user.get("additionalGids", ())),
        ),
        image=api.Image(name=image_name, digest=image_digest, config_digest=record.image_id),
    )


def _hook(hook: Mapping[str, Any]) -> api.Hook:
    timeout = hook.get("timeout")
    return api.Hook(
        path=hook["path"],
        args=list(hook.get("args", ())),
        env=list(hook.get("env", ())),
        timeout=None if timeout is None else api.OptionalInt(value=timeout),
    )


def _linux(process: Mapping[str, Any], linux: Mapping[str, Any]) -> api.LinuxContainer:
    score = process.get("oomScoreAdj")
    return api.LinuxContainer(
        namespaces=[
            api.LinuxNamespace(type=one["type"], path=one.get("path", ""))
            for one in linux.get("namespaces", ())
        ],
        devices=[_device(one) for one in linux.get("devices", ())],
        resources=from_oci(linux.get("resources", {})),
        oom_score_adj=None if score is None else api.OptionalInt(value=score),
        cgroups_path=linux.get("cgroupsPath", ""),
        sysctl=dict(linux.get("sysctl", {})),
    )


def _device(node: Mapping[str, Any]) -> api.LinuxDevice:
    mode, uid, gid = node.get("fileMode"), node.get("uid"), node.get("gid")
    return api.LinuxDevice(
        path=node["path"],
        type=node["type"],
        major=node.get("major", 0),
        minor=node.get("minor", 0),
        file_mode=None if mode is None else api.OptionalFileMode(value=mode),
        uid=None if uid is None else api.OptionalUInt32(value=uid),
        gid=None if gid is None else api.OptionalUInt32(value=gid),
    )
