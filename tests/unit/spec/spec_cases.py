"""Named inputs of spec generation: one case for each thing a client, image, node or policy can say."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from noded.model.container import ContainerConfig, ContainerSecurity, Mount, MountPropagation
from noded.model.host import CgroupDriver, CgroupMode, HostFacts
from noded.model.image import ImageConfig
from noded.model.pod import (
    GroupsPolicy,
    HugepageLimit,
    IDMapping,
    NamespaceMode,
    NamespaceOptions,
    PodConfig,
    ProfileType,
    Resources,
    SandboxKey,
    SandboxSecurity,
    SecurityProfile,
    UserNamespace,
)
from noded.model.runtime import RuntimeFeatures
from noded.spec.base import parse_base_spec
from noded.spec.capabilities import KNOWN
from noded.spec.inputs import (
    ContainerInputs,
    ImageVolume,
    InfraInputs,
    NamespacePaths,
    NodeMount,
    PodFiles,
    ResolvedDevice,
    ResolvedMount,
    ResolvedUser,
    Rlimit,
    SpecPolicy,
)

SANDBOX_ID = "5a" * 32
CONTAINER_ID = "c0" * 32
FILES = f"/run/noded/pods/{SANDBOX_ID}"

HOST = HostFacts(
    cgroup_mode=CgroupMode.V2,
    cgroup_driver=CgroupDriver.CGROUPFS,
    cgroup_controllers=frozenset({"cpu", "cpuset", "memory", "pids", "hugetlb", "io"}),
    kernel=(6, 12),
    architecture="x86_64",
    bounding_capabilities=frozenset(KNOWN),
    may_lower_oom_score_adj=True,
    oom_score_adj=0,
    apparmor=False,
    selinux=False,
    boot_id="boot",
    swap_accounting=True,
)
FEATURES = RuntimeFeatures(
    version="test",
    recursive_read_only_mounts=True,
    user_namespaces=True,
    idmap_mounts=True,
    highest_oci_version="1.1.0",
)
IMAGE = ImageConfig(
    env=("PATH=/usr/bin:/bin", "LANG=C.UTF-8"),
    entrypoint=("/entry", "--serve"),
    cmd=("8080",),
    working_dir="/srv",
)
DEFAULT = SecurityProfile(ProfileType.RUNTIME_DEFAULT)
MAPPING = (IDMapping(host_id=65536, container_id=0, length=65536),)


BASE = parse_base_spec(
    json.dumps(
        {
            "ociVersion": "1.2.0",
            "process": {
                "args": ["sh"],
                "user": {"uid": 5, "gid": 5},
                "capabilities": {"effective": ["CAP_SYS_ADMIN"]},
                "env": ["PATH=/x", "SITE=a"],
                "rlimits": [
                    {"type": "RLIMIT_CORE", "soft": 5, "hard": 5},
                    {"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 4096},
                ],
            },
            "hostname": "base",
            "mounts": [
                {"destination": "/proc/", "type": "bind", "source": "/"},
                {"destination": "/run", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"]},
            ],
            "hooks": {"poststop": [{"path": "/bin/tidy"}]},
            "annotations": {"site.example/rack": "7", "io.kubernetes.pod.name": "forged"},
            "linux": {
                "namespaces": [],
                "seccomp": {"defaultAction": "SCMP_ACT_ALLOW"},
                "resources": {
                    "devices": [{"allow": True, "access": "rwm"}],
                    "memory": {"limit": 1, "swap": 2},
                    "pids": {"limit": 512},
                },
                "devices": [
                    {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229},
                    {"path": "/dev/kvm", "type": "c", "major": 1, "minor": 1},
                ],
            },
        }
    )
)


def pod(**more: Any) -> PodConfig:
    options = more.pop("namespaces", NamespaceOptions(pid=NamespaceMode.CONTAINER))
    privileged = more.pop("privileged", False)
    return replace(
        PodConfig(
            key=SandboxKey("default", "web", "11111111-2222-3333-4444-555555555555", 0),
            hostname="web-0",
            log_directory="/var/log/pods/default_web_1",
            annotations={
                "team.example/owner": "search",
                "io.katacontainers.config.hypervisor.default_vcpus": "2",
            },
            security=SandboxSecurity(namespaces=options, privileged=privileged),
        ),
        **more,
    )


def container(**more: Any) -> ContainerConfig:
    security = more.pop("security", {})
    values: dict[str, Any] = {
        "name": "main",
        "attempt": 0,
        "image": "sha256:" + "1" * 64,
        "user_specified_image": "registry.example/web:1",
        "log_path": "main/0.log",
        "security": ContainerSecurity(**security),
    }
    return ContainerConfig(**(values | more))


def inputs(config: ContainerConfig | None = None, **more: Any) -> ContainerInputs:
    config = config or container()
    values: dict[str, Any] = {
        "pod": pod(),
        "container": config,
        "image": IMAGE,
        "user": ResolvedUser(0, 0, (0,), "root"),
        "host": HOST,
        "features": FEATURES,
        "sandbox_id": SANDBOX_ID,
        "container_id": CONTAINER_ID,
        "rootfs": f"/run/noded/containers/{CONTAINER_ID}/rootfs",
        "cgroups_path": f"/kubepods/pod1/{CONTAINER_ID}",
        "namespaces": NamespacePaths(
            net=f"/run/netns/noded-{SANDBOX_ID}", ipc=f"{FILES}/ns/ipc", uts=f"{FILES}/ns/uts"
        ),
        "files": PodFiles(f"{FILES}/resolv.conf", f"{FILES}/hostname", f"{FILES}/hosts", f"{FILES}/shm"),
        "hostname": "web-0",
        "log_path": "/var/log/pods/default_web_1/main/0.log",
    }
    return ContainerInputs(**(values | more))


def infra(**more: Any) -> InfraInputs:
    values: dict[str, Any] = {
        "pod": pod(namespaces=NamespaceOptions()),
        "host": HOST,
        "features": FEATURES,
        "sandbox_id": SANDBOX_ID,
        "rootfs": f"{FILES}/infra/rootfs",
        "init": "/usr/bin/catatonit",
        "cgroups_path": f"/kubepods/pod1/{SANDBOX_ID}",
        "namespaces": NamespacePaths(
            net=f"/run/netns/noded-{SANDBOX_ID}", ipc=f"{FILES}/ns/ipc", uts=f"{FILES}/ns/uts"
        ),
        "hostname": "web-0",
    }
    return InfraInputs(**(values | more))


def mount(
    path: str, source: str = "/srv/data", *, shared: bool = False, slave: bool = False, **more: Any
) -> ResolvedMount:
    host_path = "" if more.get("image") else source
    return ResolvedMount(
        Mount(path, host_path, **more), source, parent="/srv", parent_shared=shared, parent_slave=slave
    )


def mounted(*mounts: ResolvedMount, config: ContainerConfig | None = None, **more: Any) -> ContainerInputs:
    config = replace(config or container(), mounts=tuple(resolved.mount for resolved in mounts))
    return inputs(config, mounts=mounts, **more)


def secured(**security: Any) -> ContainerInputs:
    return inputs(container(security=security))


def userns_pod(**options: Any) -> PodConfig:
    options = {"pid": NamespaceMode.CONTAINER, "userns": UserNamespace(uids=MAPPING, gids=MAPPING)} | options
    return pod(namespaces=NamespaceOptions(**options))


USERNS_PATHS = NamespacePaths(
    net=f"/run/netns/noded-{SANDBOX_ID}",
    ipc=f"{FILES}/ns/ipc",
    uts=f"{FILES}/ns/uts",
    user=f"{FILES}/ns/user",
)
LIMITED = frozenset(KNOWN) - {"CAP_SYS_RESOURCE", "CAP_NET_ADMIN"}
HOST_POD = pod(
    namespaces=NamespaceOptions(NamespaceMode.NODE, NamespaceMode.NODE, NamespaceMode.NODE), hostname=""
)
DOCKER_PROFILE = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrno": "ENOSYS",
    "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]}],
    "syscalls": [
        {
            "names": ["read", "write"],
            "action": "SCMP_ACT_ALLOW",
            "comment": "files",
            "includes": {},
            "excludes": {},
        },
        {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        {
            "names": ["mount"],
            "action": "SCMP_ACT_ERRNO",
            "errno": "EPERM",
            "excludes": {"caps": ["CAP_SYS_ADMIN"]},
        },
        {"names": ["arch_prctl"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64"]}},
        {"names": ["set_tls"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm64"]}},
        {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
    ],
}
OCI_PROFILE = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "architectures": ["SCMP_ARCH_X86_64"],
    "flags": ["SECCOMP_FILTER_FLAG_LOG"],
    "syscalls": [
        {
            "names": ["personality"],
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": 1,
            "args": [{"index": 0, "value": 2**64 - 1, "valueTwo": 0, "op": "SCMP_CMP_NE"}],
        }
    ],
}
LOCALHOST = SecurityProfile(ProfileType.LOCALHOST, "/var/lib/kubelet/seccomp/web.json")
RESOURCES = Resources(
    cpu_period_us=100_000,
    cpu_quota_us=50_000,
    cpu_shares=512,
    memory_limit_bytes=128 << 20,
    memory_swap_limit_bytes=256 << 20,
    oom_score_adj=936,
    cpuset_cpus="0-1",
    cpuset_mems="0",
    hugepage_limits=(HugepageLimit("2MB", 4 << 20), HugepageLimit("1GB", 0)),
    unified={"memory.high": "120000000", "memory.min": "0"},
)
HYBRID = replace(
    HOST,
    cgroup_mode=CgroupMode.HYBRID,
    cgroup_controllers=frozenset({"cpu", "memory", "pids"}),
    swap_accounting=False,
)
NODE_DEVICES = (
    ResolvedDevice("/dev/null", "c", 1, 3),
    ResolvedDevice("/dev/ptmx", "c", 5, 2),
    ResolvedDevice("/dev/pts/0", "c", 136, 0, mode=0o620, gid=5),
    ResolvedDevice("/dev/vda", "b", 254, 0, mode=0o660, gid=6),
)

CASES: dict[str, ContainerInputs | InfraInputs] = {
    # process
    "plain": inputs(),
    "command_replaces_entrypoint_and_drops_cmd": inputs(container(command=("/bin/sh", "-c", "true"))),
    "args_replace_cmd": inputs(container(args=("9090",))),
    "command_and_args": inputs(container(command=("/bin/sh",), args=("-x",))),
    "image_without_path_or_directory": inputs(image=ImageConfig(cmd=("/run-me",))),
    "image_with_a_relative_directory": inputs(image=replace(IMAGE, working_dir="app")),
    "working_dir_of_the_client": inputs(container(working_dir="/work")),
    "env_of_the_client_wins": inputs(
        container(envs=(("LANG", "de"), ("EMPTY", ""), ("HOSTNAME", "mine"), ("A", "b=c")))
    ),
    "terminal": inputs(container(tty=True, stdin=True, stdin_once=True)),
    "environment_of_the_policy": inputs(
        policy=SpecPolicy(environment=(("LANG", "en"), ("HTTP_PROXY", "p:1")))
    ),
    "rlimits_and_umask": inputs(
        policy=SpecPolicy(rlimits=(Rlimit("RLIMIT_NOFILE", 1024, 4096),), umask=0o027)
    ),
    # users
    "user_with_groups": inputs(user=ResolvedUser(1000, 1000, (1000, 1234, 50000), "web")),
    "strict_groups": inputs(
        container(security={"run_as_user": 1000, "supplemental_groups_policy": GroupsPolicy.STRICT}),
        user=ResolvedUser(1000, 0, (0,)),
    ),
    # capabilities
    "caps_added_and_dropped": secured(
        add_capabilities=("NET_ADMIN", "sys_time"), drop_capabilities=("CAP_KILL",)
    ),
    "caps_all_added": secured(add_capabilities=("ALL",)),
    "caps_all_added_but_one": secured(add_capabilities=("ALL",), drop_capabilities=("SYS_ADMIN",)),
    "caps_all_dropped": secured(drop_capabilities=("ALL",)),
    "caps_all_dropped_one_added": secured(drop_capabilities=("ALL",), add_capabilities=("NET_BIND_SERVICE",)),
    "caps_ambient": inputs(
        container(security={"run_as_user": 1000, "add_ambient_capabilities": ("NET_BIND_SERVICE",)}),
        user=ResolvedUser(1000, 1000, (1000,)),
    ),
    "caps_that_the_node_lacks": inputs(
        container(security={"add_capabilities": ("NET_ADMIN",)}),
        host=replace(HOST, bounding_capabilities=LIMITED),
    ),
    "caps_of_the_policy": inputs(policy=SpecPolicy(default_capabilities=("CAP_NET_RAW",))),
    # privileges
    "no_new_privs": secured(no_new_privs=True),
    "privileged": inputs(
        container(security={"privileged": True, "seccomp": DEFAULT}),
        pod=pod(privileged=True),
        host_devices=NODE_DEVICES,
    ),
    "privileged_with_the_handlers_profile": inputs(
        container(security={"privileged": True, "seccomp": SecurityProfile(ProfileType.UNCONFINED)}),
        pod=pod(privileged=True),
        policy=SpecPolicy(privileged_seccomp=DOCKER_PROFILE, default_seccomp=OCI_PROFILE),
    ),
    "privileged_on_a_limited_node": inputs(
        container(security={"privileged": True}),
        pod=pod(privileged=True),
        host=replace(HOST, bounding_capabilities=LIMITED),
    ),
    "privileged_without_host_devices": inputs(
        container(security={"privileged": True}),
        pod=pod(privileged=True),
        host_devices=NODE_DEVICES,
        devices=(ResolvedDevice("/dev/fuse", "c", 10, 229),),
        policy=SpecPolicy(privileged_without_host_devices=True),
    ),
    "readonly_rootfs": secured(readonly_rootfs=True),
    "masked_and_readonly_paths": secured(
        masked_paths=("/proc/kcore", "/proc/kcore"), readonly_paths=("/proc/sys",)
    ),
    # seccomp
    "seccomp_runtime_default": secured(seccomp=DEFAULT),
    "seccomp_runtime_default_with_caps": secured(
        seccomp=DEFAULT, add_capabilities=("SYS_ADMIN", "SYS_PTRACE", "SYS_CHROOT")
    ),
    "seccomp_runtime_default_on_arm": inputs(
        container(security={"seccomp": DEFAULT}), host=replace(HOST, architecture="aarch64")
    ),
    "seccomp_runtime_default_of_the_policy": inputs(
        container(security={"seccomp": DEFAULT}), policy=SpecPolicy(default_seccomp=DOCKER_PROFILE)
    ),
    "seccomp_unconfined": secured(seccomp=SecurityProfile(ProfileType.UNCONFINED)),
    "seccomp_localhost_oci_form": inputs(
        container(security={"seccomp": LOCALHOST}), seccomp_profile=OCI_PROFILE
    ),
    "seccomp_localhost_docker_form": inputs(
        container(security={"seccomp": LOCALHOST, "add_capabilities": ("SYS_ADMIN",)}),
        seccomp_profile=DOCKER_PROFILE,
    ),
    # AppArmor and SELinux
    "apparmor_default": inputs(
        host=replace(HOST, apparmor=True), policy=SpecPolicy(apparmor_profile="noded-default")
    ),
    "apparmor_localhost": inputs(
        container(security={"apparmor": SecurityProfile(ProfileType.LOCALHOST, "localhost/web")}),
        host=replace(HOST, apparmor=True),
    ),
    "apparmor_unconfined": inputs(
        container(security={"apparmor": SecurityProfile(ProfileType.UNCONFINED)}),
        host=replace(HOST, apparmor=True),
        policy=SpecPolicy(apparmor_profile="noded-default"),
    ),
    "selinux_labels": inputs(
        host=replace(HOST, selinux=True),
        process_label="system_u:system_r:container_t:s0:c1,c2",
        mount_label="system_u:object_r:container_file_t:s0:c1,c2",
    ),
    # namespaces
    "host_namespaces": inputs(
        pod=HOST_POD, namespaces=NamespacePaths(), files=PodFiles(f"{FILES}/resolv.conf"), hostname="node1"
    ),
    "pod_pid": inputs(
        pod=pod(namespaces=NamespaceOptions()),
        namespaces=NamespacePaths(net="/run/netns/x", ipc="/ns/ipc", uts="/ns/uts", pid="/proc/4321/ns/pid"),
    ),
    "own_pid_in_a_pod_that_shares": inputs(
        container(security={"namespaces": NamespaceOptions(pid=NamespaceMode.CONTAINER)}),
        pod=pod(namespaces=NamespaceOptions()),
    ),
    "target_pid": inputs(
        container(security={"namespaces": NamespaceOptions(pid=NamespaceMode.TARGET, target_id="c1")}),
        namespaces=NamespacePaths(net="/run/netns/x", ipc="/ns/ipc", uts="/ns/uts", pid="/proc/99/ns/pid"),
    ),
    "nothing_pinned": inputs(namespaces=NamespacePaths(), files=PodFiles()),
    "user_namespace": inputs(pod=userns_pod(), namespaces=USERNS_PATHS),
    "user_namespace_unmasked_proc": inputs(
        container(security={"masked_paths": (), "readonly_paths": ()}),
        pod=userns_pod(),
        namespaces=USERNS_PATHS,
    ),
    "user_namespace_on_host_network": inputs(
        pod=userns_pod(network=NamespaceMode.NODE), namespaces=NamespacePaths(ipc="/ns/ipc", user="/ns/user")
    ),
    "user_namespace_with_few_ids": inputs(
        pod=userns_pod(userns=UserNamespace(uids=(IDMapping(100, 0, 1),), gids=(IDMapping(100, 0, 1),))),
        namespaces=USERNS_PATHS,
    ),
    # mounts
    "mounts_private_ro_rw": mounted(mount("/data"), mount("/config", "/srv/config", readonly=True)),
    "mounts_sorted_parents_first": mounted(
        mount("/a/b/c", "/srv/3"), mount("/a", "/srv/1"), mount("/a/b/", "/srv/2")
    ),
    "mount_bidirectional": mounted(
        mount("/data", shared=True, propagation=MountPropagation.BIDIRECTIONAL),
        mount("/logs", shared=True, propagation=MountPropagation.HOST_TO_CONTAINER),
    ),
    "mount_host_to_container": mounted(
        mount("/data", slave=True, propagation=MountPropagation.HOST_TO_CONTAINER)
    ),
    "mount_recursive_readonly": mounted(mount("/data", readonly=True, recursive_read_only=True)),
    "mount_recursive_readonly_on_an_older_runtime": mounted(
        mount("/data", readonly=True, recursive_read_only=True),
        features=replace(FEATURES, highest_oci_version="1.0.2-dev"),
    ),
    "mount_idmapped": mounted(
        mount("/data", uid_mappings=MAPPING, gid_mappings=MAPPING), pod=userns_pod(), namespaces=USERNS_PATHS
    ),
    "mount_of_an_image": mounted(
        mount("/model", "/var/lib/noded/image/1", image="sha256:2", image_sub_path="en", readonly=True)
    ),
    "mounts_replace_the_pods_files": mounted(
        mount("/etc/hosts", "/var/lib/kubelet/hosts"),
        mount("/dev/shm", "/srv/shm"),
        mount("/etc/resolv.conf", "/r"),
    ),
    "mounts_over_kernel_trees": mounted(
        mount("/dev", "/dev"), mount("/sys", "/sys"), mount("/devices", "/srv/d")
    ),
    "image_volumes": mounted(
        mount("/data", "/srv/data"),
        volumes=(ImageVolume("/data", "/v/1"), ImageVolume("/var/cache/", "/v/2")),
    ),
    "timezone": inputs(files=PodFiles(localtime="/usr/share/zoneinfo/Europe/Berlin")),
    "node_mounts": inputs(
        mounts=(mount("/data", "/srv/data"), mount("/etc/system-fips")),
        volumes=(ImageVolume("/secrets", "/v/1"),),
        node_mounts=(
            NodeMount("/data/logs", "/var/log/pods/default_web_1", "link-logs"),
            NodeMount("/secrets", "/usr/share/secrets", "default_mounts_file"),
            NodeMount("/etc/system-fips", "/run/noded/fips", "fips"),
            NodeMount("/etc/hosts", "/srv/hosts", "default_mounts_file"),
        ),
    ),
    "base_spec": inputs(
        container(resources=Resources(memory_limit_bytes=64 << 20)),
        devices=(ResolvedDevice("/dev/kvm", "c", 10, 232),),
        policy=SpecPolicy(base=BASE, rlimits=(Rlimit("RLIMIT_CORE", 0, 0),)),
    ),
    "exec_cpu_affinity": inputs(
        container(resources=Resources(cpuset_cpus="2-3,7")),
        features=replace(FEATURES, highest_oci_version="1.2.1"),
        policy=SpecPolicy(exec_cpu_affinity="first"),
    ),
    "exec_cpu_affinity_of_shared_cpus": inputs(
        container(resources=Resources(cpuset_cpus="0-1,4")),
        policy=SpecPolicy(exec_cpu_affinity="first", shared_cpus="1,4"),
    ),
    "apparmor_profile_of_the_handler": inputs(
        container(security={"seccomp": DEFAULT}),
        host=replace(HOST, apparmor=True),
        policy=SpecPolicy(apparmor_profile="site-default"),
    ),
    "classes_of_block_io_and_rdt": inputs(
        pod=pod(annotations={"blockio.resources.beta.kubernetes.io/pod": "slow"}),
        block_io={"weight": 80, "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 50_000_000}]},
        rdt_class="gold",
    ),
    "stop_signal": inputs(stop_signal="SIGRTMIN+3"),
    "writable_cgroup": inputs(policy=SpecPolicy(cgroup_writable=True)),
    # devices
    "devices": inputs(
        devices=(
            ResolvedDevice("/dev/kvm", "c", 10, 232, mode=0o660, gid=104, permissions="rw"),
            ResolvedDevice("/dev/disk", "b", 8, 16, permissions=""),
        )
    ),
    "device_ownership_from_security_context": inputs(
        container(security={"run_as_user": 1000, "run_as_group": 2000}),
        user=ResolvedUser(1000, 2000, (2000,)),
        devices=(ResolvedDevice("/dev/kvm", "c", 10, 232, mode=0o660, gid=104),),
        policy=SpecPolicy(device_ownership_from_security_context=True),
    ),
    # resources
    "resources_v2": inputs(container(resources=RESOURCES)),
    "resources_hybrid": inputs(
        container(resources=replace(RESOURCES, unified={})), host=HYBRID, policy=SpecPolicy(pids_limit=0)
    ),
    "memory_limit_alone": inputs(container(resources=Resources(memory_limit_bytes=64 << 20))),
    "pids_limit": inputs(policy=SpecPolicy(pids_limit=100)),
    "pids_limit_without_the_controller": inputs(
        host=replace(HOST, cgroup_controllers=frozenset({"cpu"})), policy=SpecPolicy(pids_limit=100)
    ),
    "oom_score_adj_below_the_daemons": inputs(
        container(resources=Resources(oom_score_adj=-997)), host=replace(HOST, may_lower_oom_score_adj=False)
    ),
    "systemd_driver": inputs(
        host=replace(HOST, cgroup_driver=CgroupDriver.SYSTEMD), cgroups_path="kubepods-pod1.slice:noded:c1"
    ),
    # annotations
    "allowed_annotations": inputs(
        container(
            annotations={"io.katacontainers.x": "c", "io.kubernetes.cri.sandbox-id": "forged", "other": "x"}
        ),
        policy=SpecPolicy(
            annotations={"run.oci.handler": "krun"},
            allowed_annotations=("io.katacontainers.*", "io.kubernetes.*"),
        ),
    ),
    # the pod's init
    "infra": infra(),
    "infra_sized": infra(pod=pod(namespaces=NamespaceOptions(), resources=RESOURCES)),
    "infra_on_its_own_cpus": infra(policy=SpecPolicy(infra_cpus="0-1")),
    "infra_with_overhead": infra(
        pod=pod(
            namespaces=NamespaceOptions(),
            resources=Resources(cpu_shares=512, cpu_quota_us=50_000, cpu_period_us=100_000),
            overhead=Resources(cpu_shares=10, memory_limit_bytes=64 << 20),
        )
    ),
    "infra_in_a_user_namespace": infra(pod=userns_pod(pid=NamespaceMode.POD), namespaces=USERNS_PATHS),
    "infra_in_a_small_user_namespace": infra(
        pod=userns_pod(
            pid=NamespaceMode.POD,
            userns=UserNamespace(uids=(IDMapping(100, 0, 10),), gids=(IDMapping(100, 0, 10),)),
        ),
        namespaces=USERNS_PATHS,
    ),
    "infra_on_the_host": infra(pod=HOST_POD, namespaces=NamespacePaths(), hostname="node1"),
    "infra_on_a_limited_node": infra(
        host=replace(HYBRID, may_lower_oom_score_adj=False), process_label="p:l", mount_label="m:l"
    ),
}
