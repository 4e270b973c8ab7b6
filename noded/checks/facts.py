"""What `gather` finds on a node and rules judge. Values only; None is "cannot be known here"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Kernel:
    """Args:
    release: as uname(2) gives it.
    namespaces: kinds in /proc/self/ns.
    filesystems: names in /proc/filesystems.
    seccomp_actions: /proc/sys/kernel/seccomp/actions_avail, empty without seccomp.
    sysctls: values by name with dots; a missing file is missing here.
    firewall: programs of iptables and nftables that are on the path.
    root_propagation: of the mount `/`: shared, slave or private.
    """

    release: str = ""
    namespaces: frozenset[str] = frozenset()
    filesystems: frozenset[str] = frozenset()
    seccomp_actions: frozenset[str] = frozenset()
    sysctls: Mapping[str, str] = field(default_factory=dict)
    firewall: frozenset[str] = frozenset()
    root_propagation: str = "shared"


@dataclass(frozen=True, slots=True)
class Cgroups:
    """Args:
    problem: why the hierarchies cannot be read, "" when they can.
    mode: v1, hybrid or v2.
    wanted_driver: cgroup_driver of the configuration, `auto` included.
    driver: what noded uses, "" when the wanted one is impossible.
    systemd: whether it is PID 1.
    """

    mode: str = "v2"
    controllers: frozenset[str] = frozenset()
    wanted_driver: str = "auto"
    driver: str = ""
    systemd: bool = False
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory that noded keeps things in, or the first one above it that exists.

    Args:
        key: of the configuration.
        mode: permission bits, None when it does not exist.
        overlay_problem: what a trial mount with an upper layer there said, "" when it worked,
            None when it was not tried.
        d_type: whether readdir(3) tells the type of entries.
    """

    key: str
    path: str
    exists: bool = True
    mode: int | None = None
    owner: int = 0
    fstype: str = ""
    read_only: bool = False
    size_bytes: int = 0
    free_bytes: int = 0
    inodes: int = 0
    free_inodes: int = 0
    overlay_problem: str | None = None
    d_type: bool | None = None


@dataclass(frozen=True, slots=True)
class Security:
    """Args:
    modules: names in /sys/kernel/security/lsm.
    apparmor_parser: whether the program that loads profiles is there.
    """

    modules: tuple[str, ...] = ()
    apparmor: bool = False
    apparmor_parser: bool = False
    selinux: bool = False
    selinux_enforcing: bool = False


@dataclass(frozen=True, slots=True)
class Program:
    """A program that noded runs: `path` "" = not found; `version` "" = it does not say."""

    name: str
    path: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True)
class Handler:
    """A configured runtime handler; `unavailable` says why it cannot run pods."""

    name: str
    type: str
    default: bool = False
    program: str = ""
    path: str = ""
    version: str = ""
    unavailable: str = ""


@dataclass(frozen=True, slots=True)
class Plugin:
    """An installed plugin; `problem` says why it is not in use."""

    name: str
    distribution: str
    problem: str = ""
    disabled: bool = False


@dataclass(frozen=True, slots=True)
class PluginFinding:
    """What a plugin's noded_diagnose says; `used`: whether a handler of the configuration is of its types."""

    distribution: str
    subject: str
    ok: bool
    detail: str = ""
    used: bool = True


@dataclass(frozen=True, slots=True)
class Network:
    """Args:
    chosen: name and file of the pod network, "" = none.
    message: why there is none, or what is wrong with other files.
    missing: types of the chosen network that no directory has.
    capabilities: that its plugins switch on.
    """

    conf_dir: str = "/etc/cni/net.d"
    bin_dirs: tuple[str, ...] = ()
    chosen: str = ""
    source: str = ""
    message: str = ""
    types: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    capabilities: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Limits:
    """Args:
    of: whose limits these are: the daemon's, or those of this command.
    nofile: hard limit of open files; -1 = none.
    sysctls: values by name with dots, of /proc/sys.
    """

    of: str = "this shell"
    nofile: int = -1
    nproc: int = -1
    sysctls: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Kubelet:
    """Args:
    running: whether a process of that name runs.
    config_path: its configuration file, "" when none was found.
    config: scalars at the top of that file and of its drop-ins, as text; the last of each wins.
    flags: of its command line, unit and environment files, without dashes; the last of each wins.
    drop_ins: for each key of `config` that a drop-in sets, its path.
    flag_files: for each flag that is not of a running command line, the file that it is in.
    problem_path, problem: the file that cannot be read, and why.
    """

    running: bool = False
    config_path: str = ""
    config: Mapping[str, str] = field(default_factory=dict)
    flags: Mapping[str, str] = field(default_factory=dict)
    drop_ins: Mapping[str, str] = field(default_factory=dict)
    flag_files: Mapping[str, str] = field(default_factory=dict)
    problem_path: str = ""
    problem: str = ""

    def setting(self, key: str, flag: str) -> str:
        """A setting that a flag overrides, "" when neither says anything."""
        return self.flags.get(flag) or self.config.get(key, "")

    def place(self, key: str, flag: str) -> str:
        """Where a setting comes from, or would be put."""
        if self.flags.get(flag):
            return self.flag_files.get(flag) or "kubelet's command line"
        return self.drop_ins.get(key) or self.config_path or "kubelet's configuration"

    def cure(self, key: str, flag: str, value: str) -> str:
        """What to do so that a setting has this value."""
        name = f"--{flag}={value}" if self.flags.get(flag) else f"{key}: {value}"
        return f"set {name} in {self.place(key, flag)} and restart kubelet"


@dataclass(frozen=True, slots=True)
class Documents:
    """Files with configuration of images; each problem is "" when the file is right or absent."""

    registries_path: str = ""
    registries_problem: str = ""
    registries_ignored: tuple[str, ...] = ()
    hosts_problems: tuple[str, ...] = ()
    policy_path: str = ""
    policy_problem: str = ""
    auth_path: str = ""
    auth_problem: str = ""


@dataclass(frozen=True, slots=True)
class Rivals:
    """Other runtimes on this node: names of processes, and sockets that somebody listens on."""

    processes: tuple[str, ...] = ()
    sockets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Daemon:
    """Args:
    listen: its socket.
    running: whether it answers there.
    problem: what an attempt to reach it said.
    socket_mode: permission bits, None when there is no socket.
    directory_mode: permission bits of the directory of the socket, None when there is none.
    conditions: type, met or not, message.
    """

    listen: str = "/run/noded/noded.sock"
    running: bool = False
    problem: str = ""
    version: str = ""
    socket_mode: int | None = None
    directory_mode: int | None = None
    directory_owner: int = 0
    conditions: tuple[tuple[str, bool, str], ...] = ()
    debts: int = 0


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything about one node."""

    root_user: bool = True
    program_version: str = ""
    config_problem: str = ""  # why the configuration is not in force, and the defaults were looked at
    kernel: Kernel = Kernel()
    cgroups: Cgroups = Cgroups()
    root: Directory = Directory("root", "/var/lib/noded")
    images: Directory | None = None  # where they are kept apart from root
    state: Directory = Directory("state", "/run/noded")
    security: Security = Security()
    programs: tuple[Program, ...] = ()
    handlers: tuple[Handler, ...] = ()
    plugins: tuple[Plugin, ...] = ()
    plugin_findings: tuple[PluginFinding, ...] = ()
    network: Network = Network()
    limits: Limits = Limits()
    kubelet: Kubelet = Kubelet()
    documents: Documents = Documents()
    rivals: Rivals = Rivals()
    daemon: Daemon = Daemon()
    swap_bytes: int = 0
    clock_synchronized: bool | None = None
