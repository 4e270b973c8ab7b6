"""What is refused before anything is made, and in whose words."""

from __future__ import annotations

from dataclasses import replace

import pytest
from spec_cases import FEATURES, HOST, HYBRID, MAPPING, container, pod, userns_pod

from noded.errors import FailedPrecondition, InvalidArgument, RROUnsupported, Unimplemented
from noded.model.container import Device, Mount, MountPropagation
from noded.model.host import CgroupDriver
from noded.model.pod import (
    DNSConfig,
    HugepageLimit,
    IDMapping,
    NamespaceMode,
    NamespaceOptions,
    PortMapping,
    PortProtocol,
    ProfileType,
    Resources,
    SandboxKey,
    SandboxSecurity,
    SecurityProfile,
    UserNamespace,
)
from noded.spec.sysctls import canonical
from noded.spec.validate import validate_container, validate_pod

N = NamespaceMode
SYSTEMD = replace(HOST, cgroup_driver=CgroupDriver.SYSTEMD)
LOCALHOST = ProfileType.LOCALHOST


def options(**more):
    return pod(namespaces=NamespaceOptions(**more))


def userns(**more):
    return options(userns=UserNamespace(**more))


def ids(container_id=0, host_id=1000, length=1000):
    return (IDMapping(host_id, container_id, length),)


@pytest.mark.parametrize(
    "config",
    [
        pod(),
        options(),
        options(network=N.NODE, pid=N.NODE, ipc=N.NODE),
        userns_pod(),
        userns_pod(network=N.NODE),
        userns(mode=N.NODE),
        pod(cgroup_parent="/kubepods/burstable/pod1"),
        pod(sysctls={"kernel.shm_rmid_forced": "1", "net/ipv4/ip_forward": "1", "fs.mqueue.msg_max": "100"}),
        pod(key=SandboxKey("default", "web", "", 3)),
        pod(security=SandboxSecurity(seccomp=SecurityProfile(LOCALHOST, "/p.json"))),
    ],
)
def test_pods_that_can_run_pass(config):
    validate_pod(config, FEATURES, HOST)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (pod(key=SandboxKey("default", "", "u", 0)), "metadata.name: must not be empty"),
        (pod(key=SandboxKey("", "web", "u", 0)), "metadata.namespace: must not be empty"),
        (pod(hostname="h" * 65), "hostname: .* is longer than 64 bytes"),
        (pod(hostname="web\n10.0.0.1 api"), "hostname: .* must not contain white space"),
        (pod(dns=DNSConfig(servers=("10.0.0.10\nsearch evil",))), "dns_config.servers: .* white space"),
        (pod(dns=DNSConfig(searches=("a b",))), "dns_config.searches: 'a b' must not contain white space"),
        (pod(dns=DNSConfig(options=("ndots:5\0",))), "dns_config.options: .* control characters"),
        (pod(log_directory="logs"), "log_directory: 'logs' must be an absolute path"),
        (pod(cgroup_parent="/a/../../b"), "linux.cgroup_parent: .* must not contain"),
        (pod(cgroup_parent="system.slice"), "linux.cgroup_parent: .* is a systemd slice"),
        (pod(port_mappings=(PortMapping(PortProtocol.TCP, 80, 70000),)), "port_mappings.host_port: 70000"),
        (options(network=N.CONTAINER), "options.network: a sandbox takes POD or NODE, not CONTAINER"),
        (options(ipc=N.TARGET), "namespace_options.ipc: a sandbox takes POD or NODE, not TARGET"),
        (options(pid=N.TARGET), "namespace_options.pid: TARGET is for containers"),
        (userns(mode=N.CONTAINER), "userns_options.mode: takes POD or NODE, not CONTAINER"),
        (userns(mode=N.TARGET), "userns_options.mode: takes POD or NODE, not TARGET"),
        (userns(mode=N.NODE, uids=ids(), gids=ids()), "uids and gids must be empty"),
        (userns(), "userns_options.uids: needs exactly one mapping, has 0"),
        (userns(uids=ids() * 2, gids=ids() * 2), "userns_options.uids: needs exactly one mapping, has 2"),
        (userns(uids=ids(), gids=()), "userns_options.gids: needs exactly one mapping, has 0"),
        (userns(uids=ids(1), gids=ids(1)), "userns_options.uids: must map container id 0, begins at 1"),
        (userns(uids=ids(length=0), gids=ids()), "userns_options.uids: 0 ids from 1000 are not within"),
        (userns(uids=ids(), gids=ids(host_id=2**32 - 10)), "userns_options.gids: 1000 ids from"),
        (userns(uids=ids(), gids=ids(length=5)), "must map equally many ids, they map 1000 and 5"),
        (userns_pod(pid=N.NODE), "namespace_options.pid: NODE cannot be combined with a user namespace"),
        (userns_pod(ipc=N.NODE), "namespace_options.ipc: NODE cannot be combined with a user namespace"),
        (pod(sysctls={"kernel.panic": "1"}), "linux.sysctls: 'kernel.panic' is not namespaced"),
        (pod(sysctls={"net": "1"}), "linux.sysctls: 'net' is not the name of a sysctl"),
        (pod(sysctls={"net/../kernel/panic": "1"}), "linux.sysctls: .* is not the name of a sysctl"),
        (pod(sysctls={"net.ipv4..x": "1"}), "linux.sysctls: .* is not the name of a sysctl"),
        (replace(options(network=N.NODE), sysctls={"net.core.somaxconn": "1"}), "the pod uses its network"),
        (replace(options(ipc=N.NODE), sysctls={"kernel.sem": "1"}), "the pod uses its IPC namespace"),
        (pod(security=SandboxSecurity(seccomp=SecurityProfile(LOCALHOST))), "linux.security_context.seccomp"),
        (pod(security=SandboxSecurity(apparmor=SecurityProfile(LOCALHOST, "x"))), "AppArmor is not enabled"),
        (pod(overhead=Resources(cpu_shares=-1)), "linux.overhead.cpu_shares: -1 is negative"),
    ],
)  # fmt: skip
def test_pods_that_cannot_are_refused_by_field(config, message):
    with pytest.raises(InvalidArgument, match=message):
        validate_pod(config, FEATURES, HOST)


def test_a_handler_without_user_namespaces_says_so():
    with pytest.raises(Unimplemented, match="this runtime handler has no user namespaces"):
        validate_pod(userns_pod(), replace(FEATURES, user_namespaces=False), HOST)


def test_the_systemd_driver_wants_slices():
    validate_pod(pod(cgroup_parent="kubepods-pod1.slice"), FEATURES, SYSTEMD)
    validate_pod(pod(), FEATURES, SYSTEMD)
    with pytest.raises(InvalidArgument, match=r"linux.cgroup_parent: '/kubepods/pod1' must end in .slice"):
        validate_pod(pod(cgroup_parent="/kubepods/pod1"), FEATURES, SYSTEMD)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
        ("net.ipv4.conf.eth0/100.forwarding", "net/ipv4/conf/eth0.100/forwarding"),
        ("net/ipv4/conf/eth0.100/forwarding", "net/ipv4/conf/eth0.100/forwarding"),
    ],
)
def test_both_spellings_of_a_sysctl_are_one_path(name, path):
    assert canonical(name) == path


def secured(**security):
    return container(security=security)


def resources(**more):
    return container(resources=Resources(**more))


def mounts(*args, **more):
    return container(mounts=(Mount(*args, **more),))


@pytest.mark.parametrize(
    ("config", "its_pod"),
    [
        (container(), pod()),
        (container(stdin_once=True), pod()),
        (mounts("/data/../x", "/srv", readonly=True, recursive_read_only=True), pod()),
        (mounts("/m", image="sha256:1", readonly=True, image_sub_path="a/b"), pod()),
        (mounts("/data", "/srv", uid_mappings=MAPPING, gid_mappings=MAPPING), userns_pod()),
        (secured(namespaces=userns_pod().namespaces), userns_pod()),
        (secured(namespaces=NamespaceOptions(userns=UserNamespace(mode=N.NODE))), pod()),
        (secured(namespaces=NamespaceOptions(pid=N.NODE)), options(pid=N.NODE)),
        (secured(namespaces=NamespaceOptions(pid=N.TARGET, target_id="c")), pod()),
        (secured(), options(network=N.NODE, pid=N.NODE, ipc=N.NODE)),
        (secured(privileged=True, seccomp=SecurityProfile(LOCALHOST)), pod(privileged=True)),
        (secured(apparmor=SecurityProfile(ProfileType.UNCONFINED)), pod()),
        (secured(apparmor=SecurityProfile(ProfileType.RUNTIME_DEFAULT)), pod()),
        (resources(cpu_quota_us=-1, memory_limit_bytes=-1, memory_swap_limit_bytes=-1), pod()),
        (
            resources(memory_limit_bytes=15 << 20, memory_swap_limit_bytes=15 << 20, cpuset_cpus="0-3,5"),
            pod(),
        ),
        (container(devices=(Device("/dev/x", "/dev/y", ""),)), pod()),
    ],
)
def test_containers_that_can_run_pass(config, its_pod):
    validate_container(config, its_pod, FEATURES, HOST)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (container(name=""), "metadata.name: must not be empty"),
        (container(image=""), "image.image: must name an image"),
        (container(log_path="/abs"), "log_path: '/abs' must be relative"),
        (container(log_path="a/../../b"), "log_path: .* without '..'"),
        (container(working_dir="x"), "working_dir: 'x' must be an absolute path"),
        (mounts("data", "/srv"), r"mounts\[0\].container_path: 'data' must be an absolute path"),
        (mounts("/x/..", "/srv"), r"mounts\[0\].container_path: the root of the container cannot"),
        (mounts("/data"), r"mounts\[0\].host_path: a mount needs a host_path or an image"),
        (mounts("/data", "srv"), r"mounts\[0\].host_path: 'srv' must be an absolute path"),
        (mounts("/data", "/srv", image="i"), "host_path and image exclude each other"),
        (mounts("/data", image="i"), r"mounts\[0\].readonly: an image volume is read-only"),
        (mounts("/data", image="i", readonly=True, image_sub_path="../x"), "image_sub_path: .* be relative"),
        (mounts("/data", "/srv", recursive_read_only=True), "recursive_read_only: needs readonly"),
        (mounts("/data", "/srv", uid_mappings=MAPPING), "uidMappings and gidMappings must be given together"),
        (container(devices=(Device("dev", "/dev/x", "r"),)), r"devices\[0\].container_path: 'dev' must be"),
        (container(devices=(Device("/dev/x", "/dev/x", "rx"),)), r"permissions: 'rx' is not made of"),
        (secured(privileged=True), "privileged: the sandbox was not made for privileged containers"),
        (secured(run_as_group=5), "run_as_group: needs run_as_user"),
        (secured(add_capabilities=("FLY",)), "add_capabilities: 'FLY' is not a Linux"),
        (secured(masked_paths=("proc",)), "masked_paths: 'proc' must be an absolute path"),
        (secured(seccomp=SecurityProfile(LOCALHOST)), "seccomp.localhost_ref: must name a file"),
        (secured(seccomp=SecurityProfile(LOCALHOST, "x.json")), "seccomp.localhost_ref: 'x.json' must be"),
        (secured(apparmor=SecurityProfile(LOCALHOST, "localhost/x")), "AppArmor is not enabled on this node"),
        (secured(apparmor=SecurityProfile(LOCALHOST, "localhost/")), "apparmor.localhost_ref: must name a"),
        (secured(namespaces=NamespaceOptions(network=N.NODE)), "network: NODE, but the sandbox"),
        (secured(namespaces=NamespaceOptions(ipc=N.CONTAINER)), "ipc: a container takes POD or NODE"),
        (secured(namespaces=NamespaceOptions(pid=N.NODE)), "pid: NODE, but the sandbox does not use"),
        (secured(namespaces=NamespaceOptions(pid=N.TARGET)), "target_id: must name a container"),
        (secured(namespaces=userns_pod().namespaces), "userns_options: must be the same as the sandbox's"),
        (resources(cpu_period_us=5), "linux.resources.cpu_period: 5 is not within 1000 to 1000000 us"),
        (resources(cpu_quota_us=5), "linux.resources.cpu_quota: 5 is neither -1 nor"),
        (resources(memory_limit_bytes=-2), "memory_limit_in_bytes: -2 is neither"),
        (resources(memory_limit_bytes=9, memory_swap_limit_bytes=8), "memory_swap_limit_in_bytes: 8 counts"),
        (resources(oom_score_adj=1001), "oom_score_adj: 1001 is not within"),
        (resources(cpuset_cpus="0-"), "cpuset_cpus: '0-' is not a list like"),
        (resources(hugepage_limits=(HugepageLimit("2Mi", 1),)), "hugepage_limits: page size '2Mi'"),
        (resources(unified={"../x": "1"}), "unified: '../x' is not the name of a cgroup file"),
        (resources(unified={"memory": "1"}), "unified: 'memory' is not the name of a cgroup file"),
    ],
)  # fmt: skip
def test_containers_that_cannot_are_refused_by_field(config, message):
    with pytest.raises(InvalidArgument, match=message):
        validate_container(config, pod(), FEATURES, HOST)


@pytest.mark.parametrize("mode", [MountPropagation.HOST_TO_CONTAINER, MountPropagation.BIDIRECTIONAL])
def test_a_recursively_readonly_mount_must_be_private(mode):
    config = mounts("/data", "/srv", readonly=True, recursive_read_only=True, propagation=mode)
    with pytest.raises(InvalidArgument, match="recursive_read_only: needs propagation PROPAGATION_PRIVATE"):
        validate_container(config, pod(), FEATURES, HOST)


def test_a_handler_that_lacks_a_mount_feature_says_so_in_kubelets_words():
    config = mounts("/data", "/srv", readonly=True, recursive_read_only=True)
    with pytest.raises(RROUnsupported, match=r"^RROUnsupported: mounts\[0\]"):
        validate_container(config, pod(), replace(FEATURES, recursive_read_only_mounts=False), HOST)
    config = mounts("/data", "/srv", uid_mappings=MAPPING, gid_mappings=MAPPING)
    with pytest.raises(Unimplemented, match="cannot map the owners of a mount"):
        validate_container(config, userns_pod(), replace(FEATURES, idmap_mounts=False), HOST)


def test_unified_limits_need_cgroup_v2():
    with pytest.raises(FailedPrecondition, match=r"memory.high need cgroup v2, this node has cgroup hybrid"):
        validate_container(resources(unified={"memory.high": "1"}), pod(), FEATURES, HYBRID)


def test_a_minimum_of_memory_is_a_matter_of_policy():
    config = resources(memory_limit_bytes=1 << 20)
    validate_container(config, pod(), FEATURES, HOST)
    with pytest.raises(InvalidArgument, match="is below 12582912, the least a container can start with"):
        validate_container(config, pod(), FEATURES, HOST, minimum_memory_bytes=12 << 20)
