"""Every rule of `noded check`: what it says of a node on which one thing is wrong."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from pathlib import Path

import pytest

from noded.checks import rules
from noded.checks.facts import (
    Cgroups,
    Daemon,
    Directory,
    Documents,
    Facts,
    Handler,
    Kernel,
    Kubelet,
    Limits,
    Network,
    Plugin,
    PluginFinding,
    Program,
    Rivals,
    Security,
)
from noded.checks.result import EXIT, Verdict, document, worst
from noded.wire.go_duration import seconds

KERNEL = Kernel(
    release="6.12.1-amd64",
    namespaces=frozenset({"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"}),
    filesystems=frozenset({"overlay", "ext4"}),
    seccomp_actions=frozenset({"errno", "allow", "log"}),
    sysctls={
        "net.ipv4.ip_forward": "1",
        "net.bridge.bridge-nf-call-iptables": "1",
        "user.max_user_namespaces": "60000",
    },
    firewall=frozenset({"nft"}),
)
CGROUPS = Cgroups(
    mode="v2",
    controllers=frozenset({"cpu", "cpuset", "io", "memory", "pids"}),
    driver="systemd",
    systemd=True,
)
ROOT = Directory(
    "root", "/var/lib/noded", mode=0o711, fstype="ext4", size_bytes=100 << 30, free_bytes=50 << 30,
    inodes=1000, free_inodes=900, overlay_problem="", d_type=True,
)  # fmt: skip
STATE = Directory("state", "/run/noded", mode=0o711, fstype="tmpfs")
NETWORK = Network(
    chosen="pods", source="10-pods.conflist", types=("bridge", "portmap"), bin_dirs=("/opt/cni/bin",),
    capabilities=frozenset({"portMappings"}),
)  # fmt: skip
RUNC = Handler("runc", "runc", default=True, program="runc", path="/usr/sbin/runc", version="1.3.4")
KUBELET = Kubelet(
    running=True,
    config_path="/var/lib/kubelet/config.yaml",
    config={
        "cgroupDriver": "systemd",
        "containerRuntimeEndpoint": "unix:///run/noded/noded.sock",
        "runtimeRequestTimeout": "2m0s",
    },
)
DAEMON = Daemon(
    running=True,
    version="1.0",
    socket_mode=0o660,
    directory_mode=0o711,
    conditions=(("RuntimeReady", True, ""),),
)
DOCUMENTS = Documents(registries_path="/etc/containers/registries.conf")
HEALTHY = Facts(
    program_version="1.0",
    kernel=KERNEL,
    cgroups=CGROUPS,
    root=ROOT,
    state=STATE,
    programs=(Program("conmon", "/usr/bin/conmon", "2.1.12"), Program("catatonit", "/usr/bin/catatonit")),
    handlers=(RUNC,),
    plugins=(Plugin("runc", "noded-plugin-runc"),),
    network=NETWORK,
    limits=Limits(nofile=1 << 20, sysctls={"kernel.pid_max": 4194304}),
    kubelet=KUBELET,
    documents=DOCUMENTS,
    daemon=DAEMON,
    clock_synchronized=True,
)


def kernel(**changes) -> Facts:
    return replace(HEALTHY, kernel=replace(KERNEL, **changes))


def sysctl(name: str, value: str | None) -> Facts:
    changed = {**KERNEL.sysctls, name: value}
    return kernel(sysctls={key: each for key, each in changed.items() if each is not None})


def root(**changes) -> Facts:
    return replace(HEALTHY, root=replace(ROOT, **changes))


def images(**changes) -> Facts:
    return replace(HEALTHY, images=replace(ROOT, key="images.root", path="/images", **changes))


def cgroups(**changes) -> Facts:
    return replace(HEALTHY, cgroups=replace(CGROUPS, **changes))


def network(**changes) -> Facts:
    return replace(HEALTHY, network=replace(NETWORK, **changes))


def kubelet(**config: str) -> Facts:
    return replace(HEALTHY, kubelet=replace(KUBELET, config={**KUBELET.config, **config}))


def daemon(**changes) -> Facts:
    return replace(HEALTHY, daemon=replace(DAEMON, **changes))


def documents(**changes) -> Facts:
    return replace(HEALTHY, documents=replace(DOCUMENTS, **changes))


def runc(version: str) -> Facts:
    return replace(HEALTHY, handlers=(replace(RUNC, version=version),))


def conmon(path: str, version: str = "") -> Facts:
    return replace(HEALTHY, programs=(Program("conmon", path, version), HEALTHY.programs[1]))


WARN, FAIL = Verdict.WARN, Verdict.FAIL
# (what it is about, the node, check, verdict, words of what was found, words of the cure)
FAULTS = [
    ("old kernel", kernel(release="5.4.0-1"), "kernel.version", FAIL, "5.4.0", "newer kernel"),
    ("no kernel at all", kernel(release="odd"), "kernel.version", FAIL, "odd", "newer kernel"),
    ("no idmapped overlay", kernel(release="5.15.0"), "kernel.version", WARN, "5.15", "5.19"),
    ("no pid ns", kernel(namespaces=KERNEL.namespaces - {"pid"}), "kernel.namespaces", FAIL, "pid", "CONFIG"),
    (
        "no user ns",
        kernel(namespaces=KERNEL.namespaces - {"user"}),
        "kernel.user_namespaces",
        WARN,
        "off",
        "sysctl",
    ),
    ("user ns off", sysctl("user.max_user_namespaces", "0"), "kernel.user_namespaces", WARN, "off", "sysctl"),
    ("no overlay", kernel(filesystems=frozenset()), "kernel.overlay", FAIL, "overlayfs", "modprobe overlay"),
    (
        "no seccomp",
        kernel(seccomp_actions=frozenset()),
        "kernel.seccomp",
        FAIL,
        "no seccomp",
        "CONFIG_SECCOMP",
    ),
    (
        "no seccomp log",
        kernel(seccomp_actions=frozenset({"errno", "allow"})),
        "kernel.seccomp",
        WARN,
        "cannot log",
        "4.14",
    ),
    (
        "no forwarding",
        sysctl("net.ipv4.ip_forward", "0"),
        "kernel.ip_forward",
        FAIL,
        "is 0",
        "sysctl --system",
    ),
    (
        "no forwarding file",
        sysctl("net.ipv4.ip_forward", None),
        "kernel.ip_forward",
        FAIL,
        "missing",
        "sysctl",
    ),
    (
        "no br_netfilter",
        sysctl("net.bridge.bridge-nf-call-iptables", None),
        "kernel.br_netfilter",
        WARN,
        "not loaded",
        "modprobe br_netfilter",
    ),
    (
        "br_netfilter off",
        sysctl("net.bridge.bridge-nf-call-iptables", "0"),
        "kernel.br_netfilter",
        WARN,
        "is 0",
        "sysctl --system",
    ),
    ("no iptables for bridge", kernel(firewall=frozenset()), "kernel.firewall", FAIL, "neither", "iptables"),
    (
        "no iptables at all",
        replace(kernel(firewall=frozenset()), network=replace(NETWORK, types=("cilium-cni",))),
        "kernel.firewall",
        WARN,
        "neither",
        "iptables",
    ),
    (
        "private root",
        kernel(root_propagation="private"),
        "kernel.propagation",
        WARN,
        "private",
        "make-rshared",
    ),
    (
        "no cgroups",
        cgroups(problem="none is mounted"),
        "cgroups.mounted",
        FAIL,
        "none is mounted",
        "mount -t",
    ),
    ("cgroup v1", cgroups(mode="v1"), "cgroups.version", WARN, "version 1", "unified_cgroup_hierarchy"),
    ("hybrid", cgroups(mode="hybrid"), "cgroups.version", WARN, "hybrid", "unified_cgroup_hierarchy"),
    (
        "no memory controller",
        cgroups(controllers=CGROUPS.controllers - {"memory"}),
        "cgroups.controllers",
        FAIL,
        "memory",
        "cgroup_enable=memory",
    ),
    (
        "systemd driver without systemd",
        cgroups(driver="", wanted_driver="systemd", systemd=False),
        "cgroups.driver",
        FAIL,
        "systemd does not run",
        'cgroup_driver = "auto"',
    ),
    (
        "cgroupfs under systemd",
        replace(cgroups(driver="cgroupfs"), kubelet=Kubelet()),
        "cgroups.driver",
        WARN,
        "cgroupfs under systemd",
        "auto",
    ),
    (
        "overlay fails",
        root(overlay_problem="bad superblock"),
        "storage.overlay",
        FAIL,
        "bad superblock",
        "set root",
    ),
    (
        "overlay on nfs, not tried",
        root(overlay_problem=None, fstype="nfs4"),
        "storage.overlay",
        FAIL,
        "nfs4",
        "ext4",
    ),
    ("no d_type", root(d_type=False, fstype="xfs"), "storage.d_type", FAIL, "xfs", "ftype=1"),
    ("read-only", root(read_only=True), "storage.writable", FAIL, "read-only", "mount it writable"),
    ("disk low", root(free_bytes=12 << 30), "storage.space", WARN, "12.0 GiB", "images rm"),
    ("disk full", root(free_bytes=300 << 20), "storage.space", FAIL, "0.3 GiB", "images rm"),
    ("inodes low", root(free_inodes=40), "storage.inodes", WARN, "40 of 1000", "inodes"),
    ("inodes gone", root(free_inodes=5), "storage.inodes", FAIL, "5 of 1000", "inodes"),
    ("image disk low", images(free_bytes=12 << 30), "storage.images.space", WARN, "12.0 GiB", "images rm"),
    ("image disk missing", images(exists=False), "storage.images", WARN, "/images", "mount it"),
    (
        "state on disk",
        replace(HEALTHY, state=replace(STATE, fstype="ext4")),
        "storage.state",
        WARN,
        "ext4",
        "below /run",
    ),
    ("root for all", root(mode=0o777), "storage.root_mode", FAIL, "0777", "chmod 711"),
    ("root of another", root(owner=1000), "storage.root_mode", FAIL, "others than root", "chown root"),
    (
        "state for all",
        replace(HEALTHY, state=replace(STATE, mode=0o722)),
        "storage.state_mode",
        FAIL,
        "0722",
        "chmod 711",
    ),
    ("not root", replace(HEALTHY, root_user=False), "check.user", WARN, "not run as root", "sudo"),
    (
        "no apparmor_parser",
        replace(HEALTHY, security=Security(apparmor=True)),
        "security.apparmor",
        WARN,
        "apparmor_parser",
        "install apparmor",
    ),
    (
        "selinux permissive",
        replace(HEALTHY, security=Security(selinux=True)),
        "security.selinux",
        WARN,
        "only reports",
        "setenforce 1",
    ),
    ("no conmon", conmon(""), "runtimes.conmon", FAIL, "not found", "apt-get install conmon"),
    (
        "conmon elsewhere",
        replace(HEALTHY, programs=(Program("/opt/conmon"),)),
        "runtimes./opt/conmon",
        FAIL,
        "not found",
        "correct conmon",
    ),
    ("old conmon", conmon("/usr/bin/conmon", "2.0.20"), "runtimes.conmon", WARN, "older than 2.1", "2.1"),
    ("bad conmon", conmon("/usr/bin/conmon", "2.1.0"), "runtimes.conmon", WARN, "conmon 2.1.0", "2.1.2"),
    (
        "no catatonit",
        replace(HEALTHY, programs=(HEALTHY.programs[0], Program("catatonit"))),
        "runtimes.catatonit",
        WARN,
        "not found",
        "install catatonit",
    ),
    ("ancient runc", runc("1.0.3"), "runtimes.runc.version", WARN, "older than 1.1", "newer"),
    ("runc with Leaky Vessels", runc("1.1.5+ds1"), "runtimes.runc.version", WARN, "1.1.5", "1.2.8"),
    ("runc that follows links", runc("1.1.13"), "runtimes.runc.version", WARN, "1.1.13", "1.2.8"),
    ("runc with the masked path race", runc("1.2.7"), "runtimes.runc.version", WARN, "1.2.7", "1.2.8"),
    ("runc 1.3 with it", runc("1.3.2"), "runtimes.runc.version", WARN, "1.3.2", "1.3.3"),
    (
        "default handler broken",
        replace(HEALTHY, handlers=(replace(RUNC, unavailable="no program /x\nmore"),)),
        "runtimes.runc",
        FAIL,
        "no program /x",
        "[runtimes.runc]",
    ),
    (
        "other handler broken",
        replace(HEALTHY, handlers=(RUNC, Handler("kata", "kata", unavailable="no shim"))),
        "runtimes.kata",
        WARN,
        "no shim",
        "[runtimes.kata]",
    ),
    (
        "no default handler",
        replace(HEALTHY, handlers=()),
        "runtimes.default",
        FAIL,
        "no handler",
        "default_runtime",
    ),
    (
        "broken plugin",
        replace(HEALTHY, plugins=(Plugin("x", "noded-x", "SyntaxError"),)),
        "plugins.x",
        FAIL,
        "SyntaxError",
        "disabled_plugins",
    ),
    (
        "plugin finding",
        replace(HEALTHY, plugin_findings=(PluginFinding("noded-x", "/dev/kvm", False, "missing"),)),
        "plugins.noded-x",
        WARN,
        "/dev/kvm: missing",
        "describe noded-x",
    ),
    (
        "no network",
        network(chosen="", message="/etc/cni/net.d has no network"),
        "network.config",
        FAIL,
        "has no network",
        "10-noded-bridge.conflist",
    ),
    (
        "a broken file beside",
        network(message="ignored: 05-x.conflist: bad"),
        "network.config",
        WARN,
        "05-x",
        "correct or",
    ),
    (
        "missing plugin",
        network(missing=("portmap",)),
        "network.plugins",
        FAIL,
        "portmap in /opt/cni/bin",
        "install",
    ),
    (
        "no host ports",
        network(capabilities=frozenset()),
        "network.host_ports",
        WARN,
        "portMappings",
        "portmap",
    ),
    (
        "broken registries.conf",
        documents(registries_problem="registries.conf: bad"),
        "images.registries",
        FAIL,
        "bad",
        "correct /etc/containers/registries.conf",
    ),
    (
        "odd registries.conf",
        documents(registries_ignored=("x.conf: locaton",)),
        "images.registries",
        WARN,
        "locaton",
        "correct",
    ),
    (
        "broken hosts.toml",
        documents(hosts_problems=("a/hosts.toml: bad",)),
        "images.hosts",
        FAIL,
        "bad",
        "correct",
    ),
    (
        "broken policy",
        documents(policy_path="/p.json", policy_problem="/p.json: bad"),
        "images.policy",
        FAIL,
        "bad",
        "correct /p.json",
    ),
    (
        "broken credentials",
        documents(auth_path="/a.json", auth_problem="bad"),
        "images.credentials",
        WARN,
        "bad",
        "correct /a.json",
    ),
    (
        "few files",
        replace(HEALTHY, limits=Limits(nofile=1024)),
        "limits.nofile",
        WARN,
        "1024 files",
        "LimitNOFILE",
    ),
    ("few processes", replace(HEALTHY, limits=Limits(nproc=100)), "limits.nproc", WARN, "100", "LimitNPROC"),
    (
        "few pids",
        replace(HEALTHY, limits=Limits(sysctls={"kernel.pid_max": 32768})),
        "limits.kernel.pid_max",
        WARN,
        "32768",
        "kernel.pid_max=65536",
    ),
    (
        "unreadable kubelet config",
        replace(HEALTHY, kubelet=Kubelet(problem_path="/k", problem="line 3")),
        "kubelet.config",
        WARN,
        "/k: line 3",
        "correct /k",
    ),
    (
        "driver mismatch",
        kubelet(cgroupDriver="cgroupfs"),
        "kubelet.cgroup_driver",
        FAIL,
        "cgroupfs",
        "cgroupDriver: systemd",
    ),
    ("short timeout", kubelet(runtimeRequestTimeout="30s"), "kubelet.request_timeout", WARN, "30 s", "2m0s"),
    ("swap", replace(HEALTHY, swap_bytes=1 << 30), "kubelet.swap", FAIL, "1024 MiB", "swapoff"),
    (
        "no endpoint",
        kubelet(containerRuntimeEndpoint=""),
        "kubelet.endpoint",
        FAIL,
        "not told",
        "unix:///run/noded",
    ),
    (
        "other endpoint",
        kubelet(containerRuntimeEndpoint="unix:///run/crio/crio.sock"),
        "kubelet.endpoint",
        FAIL,
        "crio.sock",
        "containerRuntimeEndpoint: unix:///run/noded/noded.sock",
    ),
    (
        "other images",
        kubelet(imageServiceEndpoint="unix:///run/x.sock"),
        "kubelet.image_endpoint",
        FAIL,
        "x.sock",
        "remove imageServiceEndpoint",
    ),
    (
        "broken config",
        replace(HEALTHY, config_problem="noded.toml:3: bad"),
        "config.valid",
        FAIL,
        "noded.toml:3",
        "config check",
    ),
    (
        "clock",
        replace(HEALTHY, clock_synchronized=False),
        "node.clock",
        WARN,
        "not synchronized",
        "timedatectl",
    ),
    (
        "containerd",
        replace(HEALTHY, rivals=Rivals(("containerd",))),
        "node.other_runtimes",
        WARN,
        "containerd",
        "disable --now containerd",
    ),
    ("socket directory", daemon(directory_mode=0o777), "daemon.socket_directory", FAIL, "0777", "chmod 711"),
    (
        "socket directory of another",
        daemon(directory_owner=7),
        "daemon.socket_directory",
        FAIL,
        "others",
        "chown",
    ),
    ("socket", daemon(socket_mode=0o666), "daemon.socket", FAIL, "0666", "chmod 660"),
    (
        "not running",
        daemon(running=False, problem="refused"),
        "daemon.running",
        WARN,
        "refused",
        "systemctl enable",
    ),
    ("old daemon", daemon(version="0.9"), "daemon.running", WARN, "0.9", "systemctl restart"),
    (
        "condition",
        daemon(conditions=(("NetworkReady", False, "no CNI"),)),
        "daemon.NetworkReady",
        FAIL,
        "no CNI",
        "status",
    ),
    ("debts", daemon(debts=2), "daemon.debts", WARN, "2 teardowns", "debts list"),
    (
        "an image store that is away",
        daemon(
            conditions=(("RuntimeReady", True, ""), ("NodedImageStores", False, "/mnt/i does not answer"))
        ),
        "daemon.image_stores",
        WARN,
        "/mnt/i does not answer",
        "export-store",
    ),
]


def test_nothing_is_wrong_with_a_healthy_node():
    wrong = [result for result in rules.judge(HEALTHY) if result.verdict is not Verdict.OK]
    assert wrong == []
    assert worst(rules.judge(HEALTHY)) is Verdict.OK


@pytest.mark.parametrize("case", FAULTS, ids=[case[0] for case in FAULTS])
def test_one_fault_is_found_alone_with_its_cure(case):
    _, facts, check, verdict, found, cure = case
    wrong = [result for result in rules.judge(facts) if result.verdict is not Verdict.OK]
    named = [result for result in wrong if result.check == check]
    assert [result.verdict for result in named] == [verdict], wrong
    assert found in named[0].found
    assert cure in named[0].fix
    assert named[0].why
    assert {result.check for result in wrong} <= {check, "kernel.firewall", "kubelet.cgroup_driver"}
    assert EXIT[worst(wrong)] == {WARN: 1, FAIL: 2}[worst(wrong)]


def test_no_cure_writes_over_what_another_has_written():
    cures = {result.fix for case in FAULTS for result in rules.judge(case[1]) if result.fix}
    written = [file for cure in cures for file in re.findall(r"[^>]>(/[^\s;]+)", cure)]
    assert written
    assert len(written) == len(set(written))


def test_every_rule_has_a_case():
    """Each call of warn and fail with a plain name, by file; computed names are in the cases above."""
    named = set()
    for path in Path(rules.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("warn", "fail"):
                first = node.args[0]
                if isinstance(first, ast.Constant):
                    named.add((first.value, node.func.id))
    assert len(named) > 40
    assert named <= {(case[2], str(case[3])) for case in FAULTS}


def test_the_cure_names_the_file_that_says_so():
    def fix(**options) -> str:
        facts = replace(HEALTHY, kubelet=replace(KUBELET, **options))
        (result,) = [each for each in rules.judge(facts) if each.check == "kubelet.cgroup_driver"]
        return result.fix

    wrong = {**KUBELET.config, "cgroupDriver": "cgroupfs"}
    assert fix(config=wrong) == f"set cgroupDriver: systemd in {KUBELET.config_path} and restart kubelet"
    dropped = fix(config=wrong, drop_ins={"cgroupDriver": "/etc/kubelet.d/10-x.conf"})
    assert dropped == "set cgroupDriver: systemd in /etc/kubelet.d/10-x.conf and restart kubelet"
    flags = {"cgroup-driver": "cgroupfs"}
    assert fix(flags=flags) == "set --cgroup-driver=systemd in kubelet's command line and restart kubelet"
    of_file = fix(flags=flags, flag_files={"cgroup-driver": "/etc/default/kubelet"})
    assert of_file == "set --cgroup-driver=systemd in /etc/default/kubelet and restart kubelet"


def test_a_node_without_kubelet_is_no_fault_and_swap_there_is_none():
    facts = replace(HEALTHY, kubelet=Kubelet(), swap_bytes=1 << 30)
    assert worst(rules.judge(facts)) is Verdict.OK


def test_findings_of_plugins_that_serve_no_handler_do_no_harm():
    finding = PluginFinding("noded-plugin-kata", "/dev/kvm", False, "missing", used=False)
    assert worst(rules.judge(replace(HEALTHY, plugin_findings=(finding,)))) is Verdict.OK


def test_flags_win_over_the_file():
    facts = replace(HEALTHY, kubelet=replace(KUBELET, flags={"cgroup-driver": "cgroupfs"}))
    assert any(each.check == "kubelet.cgroup_driver" and each.verdict is FAIL for each in rules.judge(facts))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2m0s", 120.0),
        ("1h30m", 5400.0),
        ("1.5s", 1.5),
        ("300ms", 0.3),
        ("0", 0.0),
        ("soon", None),
        ("5", None),
    ],
)
def test_durations_of_go(text, value):
    assert seconds(text) == value


def test_the_document_has_a_verdict_counts_and_every_result():
    made = document(rules.judge(kernel(release="5.4.0")), "1.0")
    assert made["schema"] == "noded.check/1"
    assert made["verdict"] == "fail"
    assert made["counts"]["fail"] == 1
    assert sum(made["counts"].values()) == len(made["results"])
    assert set(made["results"][0]) == {"check", "verdict", "found", "why", "fix"}
