"""CRI requests that together set every field of CreateContainerRequest, and the specs they get.

What the engine would look up on a node comes from small tables here, so that the way from the message on
the wire to the spec is the real one and yet the same everywhere.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from spec_cases import (
    CONTAINER_ID,
    DOCKER_PROFILE,
    FEATURES,
    FILES,
    HOST,
    OCI_PROFILE,
    SANDBOX_ID,
    infra,
    inputs,
)

from noded.edge.cri.decode_container import container_config
from noded.edge.cri.decode_pod import pod_config
from noded.errors import InvalidArgument
from noded.model.container import ContainerConfig
from noded.model.pod import NamespaceMode, PodConfig, ProfileType
from noded.proto.runtime import v1
from noded.spec.cdi.catalogue import Catalogue, CdiFile
from noded.spec.cdi.document import parse_document
from noded.spec.cdi.edits import apply_edits
from noded.spec.cdi.names import requested_devices
from noded.spec.explain.case import Case, build
from noded.spec.inputs import NamespacePaths, ResolvedDevice, ResolvedMount, SpecPolicy
from noded.spec.namespaces import pid_mode, user_namespace
from noded.spec.selinux import container_labels, infra_labels, parse_contexts

PASSWD = "root:x:0:0::/:/bin/sh\nweb:x:1000:1001::/:/bin/sh\n"
GROUP = "root:x:0:\nweb:x:1001:\nextra:x:44:web\n"
CONTEXTS = parse_contexts(
    'process = "system_u:system_r:container_t:s0"\nfile = "system_u:object_r:container_file_t:s0"\n'
)
NODE_DEVICES = {"/dev/fuse": ("c", 10, 229), "/dev/fusex": ("c", 10, 230)}
CDI = Catalogue(
    [
        CdiFile(
            "/etc/cdi/vendor.json",
            0,
            parse_document(
                '{"cdiVersion": "0.6.0", "kind": "vendor.example/net", "devices": ['
                '{"name": "a", "containerEdits": {"env": ["NET=a"]}},'
                '{"name": "ax", "containerEdits": {"env": ["NET=ax"]}}]}'
            ),
        )
    ]
)
POLICY = SpecPolicy(
    allowed_annotations=("io.example.*", "umask.noded.io"),
    apparmor_profile="noded-default",
)
NODE = replace(HOST, apparmor=True, selinux=True)

_MAPPING = [{"host_id": 65536, "container_id": 0, "length": 65536}]
_RESOURCES = {
    "cpu_period": 100_000,
    "cpu_quota": 50_000,
    "cpu_shares": 512,
    "memory_limit_in_bytes": 134_217_728,
    "memory_swap_limit_in_bytes": 234_217_728,
    "oom_score_adj": 936,
    "cpuset_cpus": "0-1",
    "cpuset_mems": "0",
    "hugepage_limits": [{"page_size": "2MB", "limit": 4_194_304}],
    "unified": {"memory.high": "120000000"},
}
_METADATA = {"name": "web", "uid": "u-1", "namespace": "default", "attempt": 2}


def _request(config: Mapping[str, Any], sandbox: Mapping[str, Any] | None = None) -> dict[str, Any]:
    linux = {"security_context": {"namespace_options": {"pid": "CONTAINER"}}}
    return {
        "pod_sandbox_id": SANDBOX_ID,
        "config": {
            "metadata": {"name": "main", "attempt": 1},
            "image": {"image": "sha256:1"},
            "log_path": "main/1.log",
            "linux": copy.deepcopy(linux),
            **config,
        },
        "sandbox_config": {
            "metadata": _METADATA,
            "hostname": "web-0",
            "log_directory": "/var/log/pods/default_web_u-1",
            "linux": copy.deepcopy(linux),
            **(sandbox or {}),
        },
    }


def _secured(security: Mapping[str, Any], sandbox: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A request with these security contexts of the container and of the pod."""
    options = {"namespace_options": {"pid": "CONTAINER"}}
    pod = {"linux": {"security_context": options | dict(sandbox)}} if sandbox is not None else None
    return _request({"linux": {"security_context": options | dict(security)}}, pod)


REQUESTS: dict[str, dict[str, Any]] = {
    "process": _request(
        {
            "image": {
                "image": "sha256:1",
                "annotations": {"a": "b"},
                "user_specified_image": "registry.example/web:1",
                "runtime_handler": "runc",
                "image_ref": "registry.example/web@sha256:2",
            },
            "command": ["/bin/server", "--port"],
            "args": ["80"],
            "working_dir": "/work",
            "envs": [{"key": "A", "value": "MQ=="}],
            "labels": {"app": "web"},
            "annotations": {"io.example.a": "1"},
            "stdin": True,
            "stdin_once": True,
            "tty": True,
            "stop_signal": "SIGUSR1",
        },
        {"labels": {"app": "web"}, "annotations": {"io.example.b": "2", "umask.noded.io": "027"}},
    ),
    "resources": _request({"linux": {"resources": _RESOURCES}}),
    "pod_resources": _request(
        {},
        {
            "dns_config": {"servers": ["1.1.1.1"], "searches": ["example"], "options": ["ndots:5"]},
            "port_mappings": [
                {"protocol": "UDP", "container_port": 53, "host_port": 5353, "host_ip": "127.0.0.1"}
            ],
            "linux": {
                "cgroup_parent": "/kubepods/pod1",
                "sysctls": {"net.ipv4.ip_forward": "1"},
                "overhead": _RESOURCES,
                "resources": _RESOURCES,
            },
        },
    ),
    "capabilities_and_user": _secured(
        {
            "capabilities": {
                "add_capabilities": ["NET_ADMIN"],
                "drop_capabilities": ["KILL"],
                "add_ambient_capabilities": ["NET_BIND_SERVICE"],
            },
            "run_as_user": {"value": 1000},
            "run_as_group": {"value": 2000},
            "supplemental_groups": [7, 8],
            "readonly_rootfs": True,
            "no_new_privs": True,
            "masked_paths": ["/proc/kcore"],
            "readonly_paths": ["/proc/sys"],
        },
        {
            "run_as_user": {"value": 1000},
            "run_as_group": {"value": 2000},
            "supplemental_groups": [7],
            "readonly_rootfs": True,
        },
    ),
    "user_by_name": _secured(
        {"run_as_username": "web", "supplemental_groups_policy": "Strict"},
        {"supplemental_groups_policy": "Strict"},
    ),
    "privileged": _secured({"privileged": True}, {"privileged": True}),
    "profiles": _secured(
        {
            "seccomp": {"profile_type": "Localhost", "localhost_ref": "/srv/web.json"},
            "apparmor": {"profile_type": "Localhost", "localhost_ref": "web"},
        },
        {
            "seccomp": {"profile_type": "Localhost", "localhost_ref": "/srv/web.json"},
            "apparmor": {"profile_type": "Localhost", "localhost_ref": "web"},
        },
    ),
    "profiles_of_older_kubelets": _secured(
        {"seccomp_profile_path": "localhost//srv/web.json", "apparmor_profile": "localhost/web"},
        {"seccomp_profile_path": "localhost//srv/web.json"},
    ),
    "selinux": _secured(
        {"selinux_options": {"user": "u", "role": "r", "type": "t", "level": "s0:c3,c4"}},
    ),
    "selinux_of_the_pod": _secured(
        {},
        {"selinux_options": {"user": "u", "role": "r", "type": "t", "level": "s0:c3,c4"}},
    ),
    "target_namespace": _secured({"namespace_options": {"pid": "TARGET", "target_id": "c1"}}),
    "pod_namespaces": _secured(
        {"namespace_options": {"network": "NODE", "pid": "POD", "ipc": "NODE"}},
        {"namespace_options": {"network": "NODE", "pid": "POD", "ipc": "NODE"}},
    ),
    "user_namespace": _request(
        {
            "mounts": [
                {
                    "container_path": "/data",
                    "host_path": "/srv/data",
                    "uid_mappings": _MAPPING,
                    "gid_mappings": _MAPPING,
                }
            ],
            "linux": {
                "security_context": {
                    "namespace_options": {
                        "pid": "CONTAINER",
                        "userns_options": {"mode": "POD", "uids": _MAPPING, "gids": _MAPPING},
                    }
                }
            },
        },
        {
            "linux": {
                "security_context": {
                    "namespace_options": {
                        "pid": "CONTAINER",
                        "target_id": "c1",
                        "userns_options": {"mode": "POD", "uids": _MAPPING, "gids": _MAPPING},
                    }
                }
            }
        },
    ),
    "mounts": _request(
        {
            "mounts": [
                {
                    "container_path": "/data",
                    "host_path": "/srv/data",
                    "readonly": True,
                    "recursive_read_only": True,
                    "selinux_relabel": True,
                },
                {"container_path": "/config", "host_path": "/srv/config", "readonly": True},
                {
                    "container_path": "/shared",
                    "host_path": "/srv/shared",
                    "propagation": "PROPAGATION_BIDIRECTIONAL",
                },
            ],
        }
    ),
    "image_mount": _request(
        {
            "mounts": [
                {
                    "container_path": "/model",
                    "readonly": True,
                    "image": {
                        "image": "sha256:3",
                        "annotations": {"a": "b"},
                        "user_specified_image": "registry.example/model:1",
                        "runtime_handler": "runc",
                        "image_ref": "registry.example/model@sha256:4",
                    },
                    "image_sub_path": "en",
                }
            ]
        }
    ),
    "devices": _request(
        {
            "devices": [{"container_path": "/dev/f", "host_path": "/dev/fuse", "permissions": "rw"}],
            "CDI_devices": [{"name": "vendor.example/net=a"}],
        }
    ),
}  # fmt: skip


def message(name: str) -> v1.CreateContainerRequest:
    """The request as it comes over the wire."""
    return message_of(REQUESTS[name])


def message_of(given: Mapping[str, Any]) -> v1.CreateContainerRequest:
    """A message from its JSON, with keys in snake case."""
    request = copy.deepcopy(dict(given))
    devices = request["config"].pop("CDI_devices", [])  # from_dict knows no names in capitals
    made = v1.CreateContainerRequest.from_dict(request)
    made.config.CDI_devices = [v1.CdiDevice(**one) for one in devices]
    return made


def case_of(request: v1.CreateContainerRequest) -> Case:
    """What noded makes a spec of, for this request."""
    config, pod = container_config(request.config), pod_config(request.sandbox_config, "sandbox_config")
    labels = container_labels(
        CONTEXTS, _level(pod), pod, config.security, host_network_unseparated=False, virtual_machine=False
    )
    return Case(
        inputs(
            config,
            pod=pod,
            host=NODE,
            sandbox_id=request.pod_sandbox_id,
            cgroups_path=f"{pod.cgroup_parent}/{CONTAINER_ID}",
            policy=POLICY,
            namespaces=_pins(pod, config),
            mounts=tuple(
                ResolvedMount(
                    one, one.host_path or f"/images/{one.image}/{one.image_sub_path}", parent_shared=True
                )
                for one in config.mounts
            ),
            devices=tuple(map(_device, config.devices)),
            hostname="node1" if pod.host_network else pod.hostname,
            log_path=f"{pod.log_directory}/{config.log_path}",
            stop_signal=config.stop_signal or "SIGTERM",
            seccomp_profile=_profile(config),
            process_label=labels.process,
            mount_label=labels.mount,
        ),
        passwd=PASSWD,
        group=GROUP,
    )


def infra_case_of(request: v1.CreateContainerRequest, *, needed: bool = False) -> Case:
    """The same of the init of the pod.

    Args:
        needed: by a runtime whose containers run in it, as gVisor's.
    """
    pod = pod_config(request.sandbox_config, "sandbox_config")
    labels = infra_labels(CONTEXTS, _level(pod), pod, host_network_unseparated=False, virtual_machine=False)
    return Case(
        infra(
            pod=pod,
            host=NODE,
            sandbox_id=request.pod_sandbox_id,
            cgroups_path=f"{pod.cgroup_parent}/{SANDBOX_ID}",
            namespaces=_pins(pod, None),
            policy=POLICY,
            features=replace(FEATURES, needs_infra=needed),
            hostname="node1" if pod.host_network else pod.hostname,
            log_directory=pod.log_directory,
            process_label=labels.process,
            mount_label=labels.mount,
        )
    )


def specs(request: v1.CreateContainerRequest) -> dict[str, Any]:
    """The specs of the container, with its CDI devices, of its pod's init, and of one that runs it."""
    edits = CDI.edits(requested_devices(container_config(request.config)))
    return {
        "container": apply_edits(build(case_of(request)), edits, {}),
        "infra": build(infra_case_of(request)),
        "infra of gVisor": build(infra_case_of(request, needed=True)),
    }


def leaves(kind: Any = v1.CreateContainerRequest, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every field of a message that is no message itself, by the descriptors of the protocol."""
    for field in dataclasses.fields(kind):
        meta = field.metadata["betterproto"]
        inner = kind._betterproto.cls_by_field.get(field.name)
        if meta.proto_type == "message":
            yield from leaves(inner, (*prefix, field.name))
        else:
            yield (*prefix, field.name)


def _level(pod: PodConfig) -> str:
    given = pod.security.selinux
    return given.level if given is not None and given.level else "s0:c1,c2"


def _pins(pod: PodConfig, config: ContainerConfig | None) -> NamespacePaths:
    pid = None
    if config is not None:
        mode = pid_mode(pod, config.security.namespaces)
        if mode is NamespaceMode.TARGET:
            pid = f"/proc/{config.security.namespaces.target_id}/ns/pid"
        elif mode is NamespaceMode.POD:
            pid = "/proc/4321/ns/pid"
    return NamespacePaths(
        net=None if pod.host_network else f"/run/netns/noded-{SANDBOX_ID}",
        ipc=None if pod.namespaces.ipc is NamespaceMode.NODE else f"{FILES}/ns/ipc",
        uts=None if pod.host_network else f"{FILES}/ns/uts",
        user=f"{FILES}/ns/user" if user_namespace(pod) is not None else None,
        pid=pid,
    )


def _device(device: Any) -> ResolvedDevice:
    if device.host_path not in NODE_DEVICES:
        raise InvalidArgument(f"no device {device.host_path}")
    kind, major, minor = NODE_DEVICES[device.host_path]
    return ResolvedDevice(device.container_path, kind, major, minor, permissions=device.permissions)


def _profile(config: ContainerConfig) -> Mapping[str, Any] | None:
    choice = config.security.seccomp
    if choice is None or choice.type is not ProfileType.LOCALHOST:
        return None
    return DOCKER_PROFILE if choice.localhost_ref == "/srv/web.json" else OCI_PROFILE
