"""What this node would make a container's spec of, collected without running or making anything."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from noded.config import Config, HandlerConfig
from noded.engine.cdi import CdiDevices
from noded.engine.devices import host_devices, resolve_devices
from noded.engine.hook_directories import HookDirectories
from noded.engine.pod_files import effective_hostname
from noded.engine.resource_classes import blockio_of, rdt_of
from noded.engine.spec_files import read_base_spec, read_default_mounts, read_handler_profile
from noded.engine.spec_stages import Changers, Stage, stages
from noded.errors import InvalidArgument, NodedError
from noded.host import facts as host_facts
from noded.host.cgroup_names import oci_path
from noded.host.mountinfo import holder, parse_mountinfo, read_mountinfo
from noded.model.container import ContainerConfig
from noded.model.extension import Edit
from noded.model.host import HostFacts
from noded.model.image import ImageConfig
from noded.model.paths import Layout
from noded.model.pod import NamespaceMode, PodConfig, ProfileType
from noded.model.runtime import RuntimeFeatures
from noded.plugins import Hooks, discover
from noded.spec.annotations import stop_signal
from noded.spec.explain.case import Case
from noded.spec.features import container_features
from noded.spec.granted import granted
from noded.spec.inputs import (
    ContainerInputs,
    NamespacePaths,
    NodeMount,
    PodFiles,
    ResolvedDevice,
    ResolvedMount,
    ResolvedUser,
    SpecPolicy,
)
from noded.spec.namespaces import pid_mode, user_namespace
from noded.spec.pod_features import log_mounts, log_path, pod_features
from noded.spec.policy import spec_policy
from noded.spec.process import parse_rlimits
from noded.spec.seccomp.annotations import notify_mode, profile_reference
from noded.spec.seccomp.profile import parse_profile
from noded.spec.workloads import workload_of

_POD = "SANDBOX_ID"  # what noded would choose
_CONTAINER = "CONTAINER_ID"
_FEATURES = RuntimeFeatures(
    recursive_read_only_mounts=True, user_namespaces=True, idmap_mounts=True, highest_oci_version="1.1.0"
)
_ASSUMED = (
    "nothing was asked of the runtime: it is taken to know runtime-spec 1.1.0",
    "users and groups are not looked up in an image",
)
_IMAGE_KEYS = {
    "Env": "env",
    "Entrypoint": "entrypoint",
    "Cmd": "cmd",
    "User": "user",
    "WorkingDir": "working_dir",
    "StopSignal": "stop_signal",
}


class OnThisNode:
    """One request on this node.

    Args:
        notes: gets what could not be known, one sentence each.
    """

    def __init__(
        self,
        config: Config,
        handler: HandlerConfig,
        pod: PodConfig,
        container: ContainerConfig,
        image: ImageConfig,
        notes: list[str],
    ) -> None:
        self._config, self._handler, self._pod = config, handler, pod
        self._container, self._image, self._notes = container, image, notes
        self._layout = Layout(config.root, config.state, images=config.images.root)
        self._facts = host_facts.collect(config)
        workload = workload_of(config.workloads, pod.annotations) if config.workloads else None
        more = workload.allowed_annotations if workload is not None else ()
        self._allowed = (*handler.allowed_annotations, *more)
        notes += _ASSUMED

    async def case(self) -> Case:
        """What the spec is built from. Raises: as creating the container would."""
        config, pod, container = self._config, self._pod, self._container
        annotations, name = pod.annotations, container.name
        policy = await self._policy()
        features = container_features(annotations, name, self._allowed, config.allowed_devices)
        asked = granted(
            annotations,
            container,
            policy,
            self._facts,
            workloads=config.workloads,
            allowed_devices=config.allowed_devices,
            shared_cpuset=config.shared_cpuset,
        )
        self._notes += asked.refused
        mode = None if container.security.privileged else notify_mode(annotations, name, self._allowed)
        inputs = ContainerInputs(
            pod=pod,
            container=container,
            image=self._image,
            user=_user(container, self._image),
            host=self._facts,
            features=_FEATURES,
            sandbox_id=_POD,
            container_id=_CONTAINER,
            rootfs=str(self._layout.rootfs(_CONTAINER)),
            cgroups_path=oci_path(self._facts.cgroup_driver, pod.cgroup_parent, _CONTAINER),
            policy=policy,
            namespaces=self._namespaces(),
            files=self._files(),
            mounts=self._mounts(),
            node_mounts=await self._node_mounts(),
            devices=self._devices(asked.container),
            host_devices=host_devices() if container.security.privileged else (),
            hostname=effective_hostname(pod, socket.gethostname()),
            log_path=log_path(pod, container),
            stop_signal=stop_signal(container, features.stop_signal, self._image),
            block_io=await blockio_of(config, self._facts, annotations, name),
            rdt_class=await rdt_of(config, annotations, name),
            seccomp_profile=self._profile(),
            seccomp_mode=mode,
            seccomp_listener=str(self._layout.seccomp_listener(_CONTAINER)),
        )
        self._note_what_is_not_known(self._facts)
        return Case(
            inputs,
            allowed_devices=config.allowed_devices,
            handler=self._handler.name,
            workloads=config.workloads,
            shared_cpuset=config.shared_cpuset,
        )

    async def changes(self, spec: Mapping[str, Any]) -> list[Stage]:
        """Who would change the spec after that: CDI devices, hook files, and plugins, but not NRI's."""
        config = self._config
        cdi = CdiDevices(config.cdi_spec_dirs)
        hooks = Hooks(discover(config.disabled_plugins, order=config.plugin_order))

        async def inject(before: Mapping[str, Any], devices: Any) -> Mapping[str, Any]:
            return await cdi.apply(before, devices, _FEATURES)

        async def wanted_edits(before: Mapping[str, Any]) -> list[tuple[str, Edit]]:
            if not hooks.edits_specs:
                return []
            return await hooks.wanted_edits(before, self._pod, self._container, _document(self._image))

        changers = Changers(inject, cdi.file_of, HookDirectories(config.hooks_dirs), wanted_edits)
        return await stages(spec, self._pod, self._container, changers, self._notes)

    async def _policy(self) -> SpecPolicy:
        config, handler = self._config, self._handler
        privileged = handler.privileged_seccomp_profile
        policy = spec_policy(
            config,
            handler,
            parse_rlimits(config.default_ulimits, "default_ulimits"),
            default_seccomp=await read_handler_profile(handler.name, handler.seccomp_profile),
            privileged_seccomp=await read_handler_profile(
                handler.name, privileged, "privileged_seccomp_profile"
            ),
            base=await read_base_spec(handler.name, handler.base_spec) if handler.base_spec else None,
        )
        apparmor = policy.apparmor_profile if self._facts.apparmor else ""
        return replace(policy, allowed_annotations=self._allowed, apparmor_profile=apparmor)

    def _namespaces(self) -> NamespacePaths:
        pins = {kind: str(self._layout.namespace_pin(_POD, kind)) for kind in ("net", "ipc", "uts", "user")}
        pid = {NamespaceMode.POD: "/proc/INIT_PID/ns/pid", NamespaceMode.TARGET: "/proc/TARGET_PID/ns/pid"}
        return NamespacePaths(
            net=pins["net"],
            ipc=pins["ipc"],
            uts=pins["uts"],
            user=pins["user"] if user_namespace(self._pod) is not None else None,
            pid=pid.get(pid_mode(self._pod, self._container.security.namespaces)),
        )

    def _files(self) -> PodFiles:
        directory, timezone = self._layout.pod(_POD), self._config.timezone
        host_ipc = self._pod.namespaces.ipc is NamespaceMode.NODE
        return PodFiles(
            resolv_conf=str(directory / "resolv.conf"),
            hostname=str(directory / "hostname"),
            hosts=str(directory / "hosts"),
            shm="/dev/shm" if host_ipc else str(directory / "shm"),
            localtime=f"/usr/share/zoneinfo/{timezone}" if timezone else None,
        )

    def _mounts(self) -> tuple[ResolvedMount, ...]:
        table = parse_mountinfo(read_mountinfo())
        must_exist = {os.path.normpath(path) for path in self._config.absent_mount_sources_to_reject}
        found = []
        for mount in self._container.mounts:
            if mount.image:
                found.append(ResolvedMount(mount, f"IMAGE:{mount.image}"))
                continue
            source = os.path.realpath(mount.host_path)
            if not os.path.lexists(source):
                refused = os.path.normpath(mount.host_path) in must_exist
                verb = "refuse the container" if refused else "make the directory"
                self._notes.append(f"mount source {mount.host_path} does not exist: noded would {verb}")
            parent = holder(table, source)
            found.append(
                ResolvedMount(
                    mount,
                    source,
                    parent.mount_point if parent else "/",
                    bool(parent and parent.shared),
                    bool(parent and parent.master),
                )
            )
        return tuple(found)

    async def _node_mounts(self) -> tuple[NodeMount, ...]:
        file = self._config.default_mounts_file
        defaults = await read_default_mounts(file) if file is not None else ()
        volume = pod_features(self._pod, self._allowed).log_volume
        return (*defaults, *log_mounts(self._pod, self._container, volume))

    def _devices(self, container: ContainerConfig) -> tuple[ResolvedDevice, ...]:
        try:
            return resolve_devices(container.devices)
        except NodedError as error:
            self._notes.append(f"devices are left out: {error}")
            return ()

    def _profile(self) -> Mapping[str, Any] | None:
        choice = self._container.security.seccomp
        if choice is not None and choice.type is ProfileType.LOCALHOST:
            try:
                data = Path(choice.localhost_ref).read_bytes()
            except OSError as error:
                raise InvalidArgument(
                    f"seccomp.localhost_ref: cannot read {choice.localhost_ref}: {error.strerror}"
                ) from None
            return parse_profile(data, choice.localhost_ref)
        named = profile_reference(
            self._pod.annotations, self._image.annotations, self._container, self._allowed
        )
        if named is not None:
            self._notes.append(
                f"the seccomp profile {named.reference} ({named.field}) was not pulled: it is left out"
            )
        return None

    def _note_what_is_not_known(self, facts: HostFacts) -> None:
        if facts.selinux:
            self._notes.append("SELinux contexts are left out: a pod gets its level when it is made")
        if facts.fips:
            self._notes.append("the node is in FIPS mode: mounts for that depend on the image's files")
        if self._image.volumes:
            self._notes.append("VOLUMEs of the image are left out: the image may have these directories")
        if self._config.nri.enable:
            self._notes.append("what NRI plugins would change cannot be known: they see real pods only")


def _user(container: ContainerConfig, image: ImageConfig) -> ResolvedUser:
    """What can be said without the image's files."""
    security = container.security
    name, _, group = image.user.partition(":")
    uid = int(name) if name.isdecimal() else 0
    uid = uid if security.run_as_user is None else security.run_as_user
    gid = int(group) if group.isdecimal() else 0
    gid = gid if security.run_as_group is None else security.run_as_group
    return ResolvedUser(uid, gid, tuple(sorted({gid, *security.supplemental_groups})))


def _document(image: ImageConfig) -> dict[str, Any]:
    """An image's OCI configuration, as far as it is known here."""
    known = {key: getattr(image, field) for key, field in _IMAGE_KEYS.items()}
    return {
        "config": {
            key: list(value) if isinstance(value, tuple) else value for key, value in known.items() if value
        }
    }
