"""How runtimes with runc's command line differ, as data, and what operators may set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class FeatureTable:
    """What releases without a `features` verb can do: the first version that has each ability.

    None means that no release has it, () that all have it.
    """

    recursive_read_only_mounts: tuple[int, ...] | None = None
    user_namespaces: tuple[int, ...] | None = None
    idmap_mounts: tuple[int, ...] | None = None
    seccomp_notify: tuple[int, ...] | None = None
    waiting_reads: tuple[int, ...] | None = ()  # a blocking read(2) of a connection waits for data
    forwards: tuple[int, ...] | None = None  # the verb `port-forward --stream=SOCKET ID PORT`
    highest_oci_version: str = "1.0.2"
    unknown_capabilities: tuple[str, ...] = ()  # of no release; it refuses a spec that names one


@dataclass(frozen=True, slots=True)
class OciQuirks:
    """What noded must know of one runtime program.

    Args:
        program: name of the program, looked up in PATH unless the handler's options give a path.
        package: what to install when it is missing.
        update: whether it has the `update` verb.
        features_verb: whether newer releases print their abilities with `features`.
        features: abilities of releases that do not.
        host_processes: whether the container's processes are processes of the host, in the
            container's cgroup. Then signals go straight to them; else through the runtime.
        refuses_hybrid_cgroups: whether it refuses a host with cgroup v1 controllers and a cgroup2
            mount beside them. It is then run where the cgroup2 mount is not visible.
        internal_pid_file: whether `exec` tells the pid inside with `--internal-pid-file`, and
            `kill -pid` signals it; needed where the pid of an exec is only a stand-in's.
        needs_infra: whether each pod needs a sandbox container.
        stand_in: whether containers run inside the sandbox's own process, so that each needs a
            process that stands for it (`noded.runtimes.stand_in`). Implies `needs_infra`.
        infra_capabilities: what the sandbox container has beyond nothing, for a runtime whose
            sandbox process does with its own rights what the containers ask for.
        own_network: whether a network stack of its own owns the pod's address, so that the pod's
            sockets are not in its network namespace.
        hides_net_core: whether `start` of the sandbox takes a network namespace that has
            /proc/sys/net/core/rmem_default for the node's own. Since Linux 6.12 all of them have.
        masked_directories: what its checkpoints call the directory that it mounts over masked ones,
            when its `restore` does not find it by that name (`noded.runtimes.restore_mounts`).
        global_args: flags put before every command.
    """

    program: str
    package: str
    update: bool = True
    features_verb: bool = True
    features: FeatureTable = FeatureTable()
    host_processes: bool = True
    refuses_hybrid_cgroups: bool = False
    internal_pid_file: bool = False
    needs_infra: bool = False
    stand_in: bool = False
    infra_capabilities: tuple[str, ...] = ()
    own_network: bool = False
    hides_net_core: bool = False
    masked_directories: str = ""
    global_args: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OciOptions:
    """`[runtimes.HANDLER]` of a type that uses `OciRuntime` as it is."""

    path: str = ""  # name or absolute path of the program, "" = the type's own name
    root: str = ""  # absolute directory for the runtime's own state, "" = STATE/runtimes/HANDLER
    global_args: tuple[str, ...] = ()  # flags put before every command
    no_pivot: bool = False  # do not use pivot_root: only for a root file system in an initramfs
    environment: Mapping[str, str] = field(default_factory=dict)  # added to the runtime's environment
