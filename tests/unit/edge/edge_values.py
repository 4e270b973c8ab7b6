"""Hypothesis strategies for model values, and their form as google.protobuf messages."""

from __future__ import annotations

from hypothesis import strategies as st

from noded.edge.cri import signals
from noded.model import container as containers
from noded.model import pod as pods
from noded.proto.runtime import v1

TEXT = st.text(max_size=12)
NAME = st.text(min_size=1, max_size=12)
TEXTS = st.lists(TEXT, max_size=3).map(tuple)
MAP = st.dictionaries(TEXT, TEXT, max_size=3)
INT64 = st.integers(-(2**63), 2**63 - 1)
UINT32 = st.integers(0, 2**32 - 1)
ID = st.integers(0, 2**63 - 1)
IDS = st.lists(ID, max_size=3).map(tuple)
PORT = st.integers(0, 65535)


def values(kind, **fields):
    return st.builds(kind, **fields)


ID_MAPPINGS = st.lists(st.builds(pods.IDMapping, UINT32, UINT32, UINT32), max_size=2).map(tuple)
MODE = st.sampled_from(pods.NamespaceMode)
USERNS = st.builds(pods.UserNamespace, MODE, ID_MAPPINGS, ID_MAPPINGS)
NAMESPACES = st.builds(pods.NamespaceOptions, MODE, MODE, MODE, TEXT, st.none() | USERNS)
PROFILE = st.none() | st.builds(pods.SecurityProfile, st.sampled_from(pods.ProfileType), TEXT)
SELINUX = st.none() | st.builds(pods.SELinuxOptions, TEXT, TEXT, TEXT, TEXT)
RESOURCES = st.none() | st.builds(
    pods.Resources,
    *[INT64] * 6,
    TEXT,
    TEXT,
    st.lists(st.builds(pods.HugepageLimit, TEXT, st.integers(0, 2**64 - 1)), max_size=2).map(tuple),
    MAP,
)
POLICY = st.sampled_from(pods.GroupsPolicy)
POD_CONFIGS = values(
    pods.PodConfig,
    key=st.builds(pods.SandboxKey, TEXT, NAME, TEXT, UINT32),
    hostname=TEXT,
    log_directory=TEXT,
    dns=st.none() | st.builds(pods.DNSConfig, TEXTS, TEXTS, TEXTS),
    port_mappings=st.lists(
        st.builds(pods.PortMapping, st.sampled_from(pods.PortProtocol), PORT, PORT, TEXT), max_size=2
    ).map(tuple),
    labels=MAP,
    annotations=MAP,
    cgroup_parent=TEXT,
    sysctls=MAP,
    overhead=RESOURCES,
    resources=RESOURCES,
    security=st.builds(
        pods.SandboxSecurity,
        NAMESPACES,
        SELINUX,
        st.none() | ID,
        st.none() | ID,
        st.booleans(),
        IDS,
        POLICY,
        st.booleans(),
        PROFILE,
        PROFILE,
    ),
)
MOUNTS = st.builds(
    containers.Mount,
    TEXT,
    TEXT,
    st.booleans(),
    st.booleans(),
    st.sampled_from(containers.MountPropagation),
    ID_MAPPINGS,
    ID_MAPPINGS,
    st.booleans(),
    TEXT,
    TEXT,
)
SIGNALS = st.sampled_from(
    [signals.name_of(member, "") for member in v1.Signal if member is not v1.Signal.RUNTIME_DEFAULT] + [""]
)
CONTAINER_CONFIGS = values(
    containers.ContainerConfig,
    name=NAME,
    attempt=UINT32,
    image=NAME,
    user_specified_image=TEXT,
    command=TEXTS,
    args=TEXTS,
    working_dir=TEXT,
    envs=st.lists(st.tuples(TEXT, TEXT), max_size=3).map(tuple),
    mounts=st.lists(MOUNTS, max_size=2).map(tuple),
    devices=st.lists(st.builds(containers.Device, TEXT, TEXT, TEXT), max_size=2).map(tuple),
    cdi_devices=TEXTS,
    labels=MAP,
    annotations=MAP,
    log_path=TEXT,
    stdin=st.booleans(),
    stdin_once=st.booleans(),
    tty=st.booleans(),
    resources=RESOURCES,
    security=st.builds(
        containers.ContainerSecurity,
        TEXTS,
        TEXTS,
        TEXTS,
        st.booleans(),
        NAMESPACES,
        SELINUX,
        st.none() | ID,
        st.none() | ID,
        TEXT,
        st.booleans(),
        IDS,
        POLICY,
        st.booleans(),
        TEXTS,
        TEXTS,
        PROFILE,
        PROFILE,
    ),
    stop_signal=SIGNALS,
)


class Encoder:
    """Model values to google.protobuf messages, written apart from the code under test."""

    def __init__(self, cri):
        self.cri = cri

    def pod(self, config):
        key, security = config.key, config.security
        return self.cri.PodSandboxConfig(
            metadata=self.cri.PodSandboxMetadata(
                name=key.name, uid=key.uid, namespace=key.namespace, attempt=key.attempt
            ),
            hostname=config.hostname,
            log_directory=config.log_directory,
            dns_config=config.dns
            and self.cri.DNSConfig(
                servers=config.dns.servers, searches=config.dns.searches, options=config.dns.options
            ),
            port_mappings=[
                self.cri.PortMapping(
                    protocol=item.protocol,
                    container_port=item.container_port,
                    host_port=item.host_port,
                    host_ip=item.host_ip,
                )
                for item in config.port_mappings
            ],
            labels=config.labels,
            annotations=config.annotations,
            linux=self.cri.LinuxPodSandboxConfig(
                cgroup_parent=config.cgroup_parent,
                sysctls=config.sysctls,
                overhead=self.resources(config.overhead),
                resources=self.resources(config.resources),
                security_context=self.cri.LinuxSandboxSecurityContext(
                    namespace_options=self.namespaces(security.namespaces),
                    selinux_options=self.selinux(security.selinux),
                    run_as_user=self.number(security.run_as_user),
                    run_as_group=self.number(security.run_as_group),
                    readonly_rootfs=security.readonly_rootfs,
                    supplemental_groups=security.supplemental_groups,
                    supplemental_groups_policy=security.supplemental_groups_policy,
                    privileged=security.privileged,
                    seccomp=self.profile(security.seccomp),
                    apparmor=self.profile(security.apparmor),
                ),
            ),
        )

    def container(self, config):
        security = config.security
        return self.cri.ContainerConfig(
            metadata=self.cri.ContainerMetadata(name=config.name, attempt=config.attempt),
            image=self.cri.ImageSpec(image=config.image, user_specified_image=config.user_specified_image),
            command=config.command,
            args=config.args,
            working_dir=config.working_dir,
            envs=[self.cri.KeyValue(key=key, value=value.encode()) for key, value in config.envs],
            mounts=[self.mount(item) for item in config.mounts],
            devices=[
                self.cri.Device(
                    container_path=item.container_path, host_path=item.host_path, permissions=item.permissions
                )
                for item in config.devices
            ],
            labels=config.labels,
            annotations=config.annotations,
            log_path=config.log_path,
            stdin=config.stdin,
            stdin_once=config.stdin_once,
            tty=config.tty,
            CDI_devices=[self.cri.CDIDevice(name=name) for name in config.cdi_devices],
            stop_signal=self.signal(config.stop_signal),
            linux=self.cri.LinuxContainerConfig(
                resources=self.resources(config.resources),
                security_context=self.cri.LinuxContainerSecurityContext(
                    capabilities=self.cri.Capability(
                        add_capabilities=security.add_capabilities,
                        drop_capabilities=security.drop_capabilities,
                        add_ambient_capabilities=security.add_ambient_capabilities,
                    ),
                    privileged=security.privileged,
                    namespace_options=self.namespaces(security.namespaces),
                    selinux_options=self.selinux(security.selinux),
                    run_as_user=self.number(security.run_as_user),
                    run_as_group=self.number(security.run_as_group),
                    run_as_username=security.run_as_username,
                    readonly_rootfs=security.readonly_rootfs,
                    supplemental_groups=security.supplemental_groups,
                    supplemental_groups_policy=security.supplemental_groups_policy,
                    no_new_privs=security.no_new_privs,
                    masked_paths=security.masked_paths,
                    readonly_paths=security.readonly_paths,
                    seccomp=self.profile(security.seccomp),
                    apparmor=self.profile(security.apparmor),
                ),
            ),
        )

    def mount(self, mount):
        return self.cri.Mount(
            container_path=mount.container_path,
            host_path=mount.host_path,
            readonly=mount.readonly,
            selinux_relabel=mount.selinux_relabel,
            propagation=mount.propagation,
            uidMappings=self.id_mappings(mount.uid_mappings),
            gidMappings=self.id_mappings(mount.gid_mappings),
            recursive_read_only=mount.recursive_read_only,
            image=self.cri.ImageSpec(image=mount.image) if mount.image else None,
            image_sub_path=mount.image_sub_path,
        )

    def signal(self, name):
        if not name:
            return self.cri.RUNTIME_DEFAULT
        return self.cri.Signal.Value(name.replace("+", "PLUS").replace("-", "MINUS"))

    def namespaces(self, options):
        userns = options.userns
        return self.cri.NamespaceOption(
            network=options.network,
            pid=options.pid,
            ipc=options.ipc,
            target_id=options.target_id,
            userns_options=userns
            and self.cri.UserNamespace(
                mode=userns.mode, uids=self.id_mappings(userns.uids), gids=self.id_mappings(userns.gids)
            ),
        )

    def id_mappings(self, mappings):
        return [
            self.cri.IDMapping(host_id=item.host_id, container_id=item.container_id, length=item.length)
            for item in mappings
        ]

    def number(self, value):
        return None if value is None else self.cri.Int64Value(value=value)

    def selinux(self, options):
        return options and self.cri.SELinuxOption(
            user=options.user, role=options.role, type=options.type, level=options.level
        )

    def profile(self, profile):
        return profile and self.cri.SecurityProfile(
            profile_type=profile.type, localhost_ref=profile.localhost_ref
        )

    def resources(self, resources):
        return resources and self.cri.LinuxContainerResources(
            cpu_period=resources.cpu_period_us,
            cpu_quota=resources.cpu_quota_us,
            cpu_shares=resources.cpu_shares,
            memory_limit_in_bytes=resources.memory_limit_bytes,
            memory_swap_limit_in_bytes=resources.memory_swap_limit_bytes,
            oom_score_adj=resources.oom_score_adj,
            cpuset_cpus=resources.cpuset_cpus,
            cpuset_mems=resources.cpuset_mems,
            hugepage_limits=[
                self.cri.HugepageLimit(page_size=item.page_size, limit=item.limit_bytes)
                for item in resources.hugepage_limits
            ],
            unified=resources.unified,
        )
