"""Generated specs on real runtimes: what a container observes of its own confinement."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from noded.model.container import ContainerConfig, ContainerSecurity, Mount, MountPropagation
from noded.model.cpus import parse_cpus
from noded.model.pod import (
    GroupsPolicy,
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
from noded.spec.base import parse_base_spec
from noded.spec.container import container_spec
from noded.spec.infra import infra_spec
from noded.spec.inputs import (
    InfraInputs,
    NamespacePaths,
    NodeMount,
    ResolvedDevice,
    ResolvedMount,
    SpecPolicy,
)
from noded.spec.process import exec_process

pytestmark = pytest.mark.root

PROBE = Path(__file__).with_name("probe.c")
DEFAULT = SecurityProfile(ProfileType.RUNTIME_DEFAULT)


def container(**more) -> ContainerConfig:
    return ContainerConfig("main", 0, "image", **more)


def status(text: str) -> dict[str, str]:
    return {line.split(":")[0]: line.split(":")[1].strip() for line in text.splitlines() if ":" in line}


def pod(**options) -> PodConfig:
    return PodConfig(
        SandboxKey("default", "web", "uid-1", 0),
        security=SandboxSecurity(namespaces=NamespaceOptions(**options)),
    )


def test_a_plain_container_is_confined(node):
    output = node.run(
        "cat /proc/self/status; hostname; echo cwd:$PWD; "
        "for p in /proc/kcore /proc/keys; do head -c1 $p 2>/dev/null | grep -q . && echo leak:$p; done; "
        "echo x > /proc/sys/kernel/domainname; echo sysctl:$?; "
        "mkdir /sys/fs/cgroup/x /sys/fs/cgroup/memory/x 2>/dev/null; echo cgroup:$?",
        container(security=ContainerSecurity(seccomp=DEFAULT, no_new_privs=True)),
    )
    facts = status(output)
    assert facts["CapEff"] == facts["CapBnd"] == "00000000000005fb"
    assert facts["CapInh"] == facts["CapAmb"] == "0000000000000000"
    assert facts["NoNewPrivs"] == "1"
    assert facts["Seccomp"] == "2"
    assert facts["cwd"] == "/"
    assert "web" in output.splitlines()
    assert "leak" not in facts
    assert facts["sysctl"] != "0"
    assert facts["cgroup"] != "0"


def test_no_seccomp_field_means_no_filter(node):
    assert status(node.run("cat /proc/self/status"))["Seccomp"] == "0"


def test_a_localhost_profile_denies_what_it_says(node):
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["chmod", "fchmodat", "not_a_call"], "action": "SCMP_ACT_ERRNO"}]}  # fmt: skip
    security = ContainerSecurity(seccomp=SecurityProfile(ProfileType.LOCALHOST, "/profile.json"))
    output = node.run(
        "chmod 600 /etc/passwd 2>&1; echo done", container(security=security), seccomp_profile=profile
    )
    assert "Operation not permitted" in output
    assert output.endswith("done\n")


def test_the_default_profile_answers_as_its_tables_say(node):
    answers = _probe(node, ContainerSecurity(seccomp=DEFAULT))
    free = {"clone", "unshare_fs", "socket_unix", "socket_inet", "socket_inet6", "socket_netlink", "getpid"}
    assert {name for name, errno in answers.items() if errno == "0"} == free | {"personality_query"}
    assert {name for name, errno in answers.items() if errno == "38"} == {
        "clone3",
        "statmount",
        "no_such_call",
    }
    assert {name for name, errno in answers.items() if errno == "97"} == {
        "socket_alg", "socket_vsock", "socket_alg_high_bit", "socket_vsock_high_bit",
    }  # fmt: skip
    rest = set(answers) - {name for name, errno in answers.items() if errno in ("0", "38", "97")}
    assert {answers[name] for name in rest} == {"1"}


def test_cap_sys_admin_opens_namespaces_and_mounts_and_nothing_else(node):
    answers = _probe(node, ContainerSecurity(seccomp=DEFAULT, add_capabilities=("SYS_ADMIN",)))
    for name in ("clone_newuser", "clone_newns", "unshare_newuser", "sethostname"):
        assert answers[name] == "0", name
    for name in ("clone3", "mount", "setns", "bpf"):
        assert answers[name] not in ("1", "38"), name
    for name in ("keyctl", "io_uring_setup", "userfaultfd", "vmsplice"):
        assert answers[name] == "1", name


def _probe(node, security) -> dict[str, str]:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler is installed")
    subprocess.run([compiler, "-static", "-o", node.rootfs / "bin/probe", PROBE], check=True)
    return dict(line.split() for line in node.run("/bin/probe", container(security=security)).splitlines())


def test_a_privileged_container_has_everything_the_node_has(node):
    output = node.run(
        "cat /proc/self/status; mkdir /sys/fs/cgroup/x 2>/dev/null; stat -c %t:%T /dev/noded-test; "
        "grep ' /sys ' /proc/self/mounts; grep -c /proc/ /proc/self/mounts; true",
        container(security=ContainerSecurity(privileged=True, seccomp=DEFAULT)),
        host_devices=(ResolvedDevice("/dev/noded-test", "c", 1, 3), ResolvedDevice("/dev/ptmx", "c", 5, 2)),
    )
    facts = status(output)
    bounding = Path("/proc/self/status").read_text().split("CapBnd:")[1].split()[0]
    assert facts["CapEff"] == bounding
    assert facts["Seccomp"] == "0"
    assert "1:3" in output.splitlines()
    assert "sysfs rw" in output
    assert output.splitlines()[-1] == "0"


def test_a_user_has_the_groups_of_the_image_and_of_the_pod(node):
    security = ContainerSecurity(run_as_user=1000, supplemental_groups=(1234,))
    assert node.run("id -u; id -G", container(security=security)).split() == ["1000", "1000", "1234", "50000"]


@pytest.mark.parametrize(
    ("given", "mask"),
    [
        ({"drop_capabilities": ("ALL",)}, 0),
        ({"drop_capabilities": ("ALL",), "add_capabilities": ("NET_BIND_SERVICE",)}, 1 << 10),
        ({"add_capabilities": ("NET_ADMIN",), "drop_capabilities": ("KILL",)}, 0x5DB | 1 << 12),
    ],
)
def test_capabilities_are_added_and_dropped_as_asked(node, given, mask):
    facts = status(node.run("cat /proc/self/status", container(security=ContainerSecurity(**given))))
    for kind in ("CapBnd", "CapPrm", "CapEff"):
        assert int(facts[kind], 16) == mask, kind
    assert int(facts["CapInh"], 16) == int(facts["CapAmb"], 16) == 0
    assert facts["NoNewPrivs"] == "0"


def test_strict_groups_are_those_of_the_pod_alone(node):
    security = ContainerSecurity(
        run_as_user=1000,
        run_as_group=2000,
        supplemental_groups=(1234,),
        supplemental_groups_policy=GroupsPolicy.STRICT,
    )
    assert node.run("id -u; id -G", container(security=security)).split() == ["1000", "2000", "1234"]


def test_a_user_of_the_image_is_found_by_name(node):
    security = ContainerSecurity(run_as_username="web")
    assert node.run("id -u; id -G", container(security=security)).split() == ["1000", "1000", "50000"]


def test_an_ambient_capability_survives_a_change_of_user(node):
    security = ContainerSecurity(run_as_user=1000, add_ambient_capabilities=("NET_ADMIN",))
    facts = status(node.run("cat /proc/self/status", container(security=security)))
    assert facts["CapEff"] == facts["CapAmb"] == "0000000000001000"


def test_a_readonly_root_refuses_writes(node):
    output = node.run("touch /x 2>&1; echo", container(security=ContainerSecurity(readonly_rootfs=True)))
    assert "Read-only file system" in output


def test_given_masked_and_readonly_paths_replace_the_default_ones(node):
    security = ContainerSecurity(masked_paths=("/etc/passwd",), readonly_paths=("/tmp",))
    output = node.run(
        "cat /etc/passwd; touch /tmp/x 2>&1; head -c1 /proc/keys | grep -c .", container(security=security)
    )
    assert output.splitlines()[0].endswith("Read-only file system")
    assert output.splitlines()[-1] == "1"


def test_a_named_device_can_be_used_as_its_permissions_say(node):
    for permissions, answer in (("r", "1"), ("w", "0")):
        # the kernel log: opening it for writing asks nothing but the device cgroup
        devices = (ResolvedDevice("/dev/mine", "c", 1, 11, permissions=permissions),)
        output = node.run("stat -c %t:%T /dev/mine; (: > /dev/mine) 2>/dev/null; echo $?", devices=devices)
        assert output.split() == ["1:b", answer]


def test_limits_reach_the_cgroup(node):
    resources = Resources(memory_limit_bytes=64 << 20, cpu_quota_us=50_000, cpu_period_us=100_000)
    if node.host.cgroup_mode == "v2":
        script = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max; head -1 /sys/fs/cgroup/cpu.max"
        wanted = ["67108864", "50", "50000 100000"]
    else:
        script = (
            "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max "
            "/sys/fs/cgroup/cpu/cpu.cfs_quota_us"
        )
        wanted = ["67108864", "50", "50000"]
    output = node.run(script, container(resources=resources), policy=SpecPolicy(pids_limit=50))
    assert output.splitlines() == wanted


def test_no_more_tasks_run_than_the_pids_limit_allows(node):
    script = "(for n in 1 2 3 4 5 6 7 8 9; do sleep 1 & done) 2>&1; true"
    for limit, refused in ((5, True), (50, False)):
        output = node.run(script, policy=SpecPolicy(pids_limit=limit))
        assert ("can't fork" in output) == refused


def test_a_device_that_nobody_named_cannot_be_used(node):
    security = ContainerSecurity(add_capabilities=("MKNOD",))
    script = "mknod /tmp/kmsg c 1 11; (: > /tmp/kmsg) 2>&1; mknod /tmp/null c 1 3; : > /tmp/null && echo fine"
    output = node.run(script, container(security=security))
    assert "Operation not permitted" in output
    assert output.endswith("fine\n")


def test_mounts_of_the_node_are_readonly_and_replace_what_is_there(node, tmp_path):
    for name, text in (("empty", ""), ("zero", "0\n")):
        (tmp_path / name).write_text(text)
    mounts = [NodeMount("/etc/system-fips", str(tmp_path / "empty"), "fips")]
    if Path("/proc/sys/crypto/fips_enabled").exists():
        mounts.append(NodeMount("/proc/sys/crypto/fips_enabled", str(tmp_path / "zero"), "disable-fips"))
    output = node.run(
        "stat -c %s /etc/system-fips; (echo x > /etc/system-fips) 2>&1; "
        "grep -c ' /proc/sys/crypto/fips_enabled ' /proc/mounts; true",
        node_mounts=tuple(mounts),
    ).splitlines()
    assert output[0] == "0"
    assert "Read-only file system" in output[1]
    assert output[2] == str(len(mounts) - 1)


def test_a_base_spec_adds_limits_variables_and_mounts_and_no_rights(node):
    base = parse_base_spec(
        json.dumps(
            {
                "process": {
                    "capabilities": {"effective": ["CAP_SYS_ADMIN"], "bounding": ["CAP_SYS_ADMIN"]},
                    "env": ["SITE=a"],
                    "rlimits": [{"type": "RLIMIT_CORE", "soft": 7, "hard": 8}],
                },
                "mounts": [
                    {"destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": ["size=64k"]}
                ],
                "linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW"}, "maskedPaths": []},
            }
        )
    )
    output = node.run(
        "cat /proc/self/status; echo site:$SITE; "
        "grep -c 'core .* 7 *8 ' /proc/self/limits; grep -c ' /mnt tmpfs' /proc/mounts",
        container(security=ContainerSecurity(seccomp=DEFAULT)),
        policy=SpecPolicy(base=base),
    )
    facts = status(output)
    assert facts["CapEff"] == facts["CapBnd"] == "00000000000005fb"
    assert facts["Seccomp"] == "2"
    assert facts["site"] == "a"
    assert output.splitlines()[-2:] == ["1", "1"]


def test_the_node_namespaces_are_shared_on_request(node):
    shared = pod(network=NamespaceMode.NODE, pid=NamespaceMode.NODE, ipc=NamespaceMode.NODE)
    script = "cd /proc/self/ns; for n in net pid ipc uts mnt; do stat -c %i -L $n; done"
    inside = node.run(script, container(security=ContainerSecurity(namespaces=shared.namespaces)), pod=shared)
    outside = [str(Path(f"/proc/self/ns/{name}").stat().st_ino) for name in ("net", "pid", "ipc", "uts")]
    assert inside.split()[:4] == outside
    assert inside.split()[4] != str(Path("/proc/self/ns/mnt").stat().st_ino)


def test_a_recursively_readonly_mount_covers_its_submounts(node, tmp_path):
    source = tmp_path / "volume"
    (source / "sub").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "noded-test", source / "sub"], check=True)
    try:
        for recursive in (False, True):
            mount = Mount("/mnt", str(source), readonly=True, recursive_read_only=recursive)
            output = node.run(
                "touch /mnt/a 2>&1; touch /mnt/sub/b 2>&1; echo", mounts=(ResolvedMount(mount, str(source)),)
            )
            assert output.count("Read-only file system") == 1 + recursive
    finally:
        subprocess.run(["umount", source / "sub"], check=True)


@pytest.mark.parametrize("mode", list(MountPropagation))
def test_propagation_goes_the_ways_asked_for(node, tmp_path, mode):
    source = tmp_path / "volume"
    source.mkdir()
    subprocess.run(["mount", "--bind", source, source], check=True)
    subprocess.run(["mount", "--make-rshared", source], check=True)
    try:
        (source / "host").mkdir()
        (source / "inside").mkdir()
        resolved = ResolvedMount(
            Mount("/mnt", str(source), propagation=mode), str(source), str(source), parent_shared=True
        )
        config = container(
            command=("/bin/sh", "-c", "mount -t tmpfs x /mnt/inside; touch /mnt/inside/made; sleep 1000"),
            security=ContainerSecurity(privileged=True),
        )
        spec = container_spec(node.inputs(config, mounts=(resolved,))).value
        name, _ = node.start(spec)
        subprocess.run(["mount", "-t", "tmpfs", "noded-test", source / "host"], check=True)
        (source / "host/seen").touch()
        wait = "while ! [ -e /mnt/inside/made ]; do sleep 0.1; done; ls /mnt/host"
        process = tmp_path / "process.json"
        process.write_text(json.dumps(exec_process(spec, ["/bin/sh", "-c", wait], terminal=False)))
        inside = node.call("exec", "--process", str(process), name).stdout
        assert ("seen" in inside) == (mode is not MountPropagation.PRIVATE)
        assert (source / "inside/made").exists() == (mode is MountPropagation.BIDIRECTIONAL)
    finally:
        node.close()
        for path in (source / "inside", source / "host", source):
            subprocess.run(["umount", "-l", path], check=False, stderr=subprocess.DEVNULL)


def test_containers_share_the_processes_of_the_pods_init(node, tmp_path):
    init = shutil.which("catatonit")
    if init is None:
        pytest.skip("catatonit is not installed")
    empty = tmp_path / "infra-rootfs"
    empty.mkdir()
    shared = pod()
    infra = infra_spec(
        InfraInputs(
            pod=shared,
            host=node.host,
            features=node.features,
            sandbox_id="5" * 64,
            rootfs=str(empty),
            init=init,
            cgroups_path=node.cgroups_path,
            hostname="web",
        )
    )
    _, pid = node.start(infra.value)
    facts = status(Path(f"/proc/{pid}/status").read_text())
    assert facts["CapEff"] == facts["CapBnd"] == "0000000000000000"
    assert facts["Uid"].split() == ["65535"] * 4
    output = node.run(
        "cat /proc/1/cmdline; echo; ls /proc/1/root/ 2>&1; cat /proc/self/status",
        container(security=ContainerSecurity(seccomp=DEFAULT)),
        namespaces=NamespacePaths(pid=f"/proc/{pid}/ns/pid"),
    )
    assert output.startswith("/init\0-P")
    assert "denied" in output
    assert status(output)["Pid"] != "1"


def test_a_user_namespace_is_joined_with_its_mappings(node, tmp_path):
    mapping = (IDMapping(host_id=200000, container_id=0, length=65536),)
    shared = pod(pid=NamespaceMode.CONTAINER, userns=UserNamespace(uids=mapping, gids=mapping))
    subprocess.run(["chown", "-R", "200000:200000", node.rootfs], check=True)
    # mounts are made by the namespace's root, which must be able to walk to its root directory
    for parent in node.rootfs.parents:
        if parent.stat().st_mode & 0o001 == 0:
            parent.chmod(parent.stat().st_mode | 0o011)
    holder = subprocess.Popen(
        ["unshare", "--user", "--net", "--ipc", "--uts", "sh", "-c", "echo ready; read x"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert holder.stdout.readline() == b"ready\n"
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{holder.pid}/{name}").write_text("0 200000 65536")
        paths = {kind: f"/proc/{holder.pid}/ns/{kind}" for kind in ("net", "ipc", "uts", "user")}
        security = ContainerSecurity(
            seccomp=DEFAULT, namespaces=replace(shared.namespaces), add_capabilities=("SYS_RESOURCE",)
        )
        output = node.run(
            "cat /proc/self/uid_map /proc/self/status; id -u; touch /made; hostname",
            container(security=security),
            pod=shared,
            namespaces=NamespacePaths(**paths),
        )
        assert output.split()[:3] == ["0", "200000", "65536"]
        assert (node.rootfs / "made").stat().st_uid == 200000
        assert output.splitlines()[-1] == "web"
        assert int(status(output)["CapEff"], 16) >> 24 & 1  # whatever the daemon itself has
    finally:
        holder.stdin.close()
        holder.wait()
        holder.stdout.close()


def test_an_exec_has_the_rights_of_the_container_and_no_more(node, tmp_path):
    security = ContainerSecurity(seccomp=DEFAULT, run_as_user=1000, no_new_privs=True)
    config = container(command=("/bin/sleep", "1000"), security=security, envs=(("COLOR", "red"),))
    spec = container_spec(node.inputs(config)).value
    name, _ = node.start(spec)
    process = tmp_path / "process.json"
    command = ["/bin/sh", "-c", "cat /proc/self/status; echo color:$COLOR"]
    process.write_text(json.dumps(exec_process(spec, command, terminal=False)))
    facts = status(node.call("exec", "--process", str(process), name).stdout)
    assert facts["Uid"].split() == ["1000"] * 4
    assert facts["Groups"].split() == ["1000", "50000"]
    assert facts["Seccomp"] == "2"
    assert facts["NoNewPrivs"] == "1"
    assert facts["CapEff"] == "0000000000000000"
    assert facts["color"] == "red"


def test_an_exec_starts_on_the_first_cpu_of_the_container_where_the_runtime_can(node, tmp_path):
    program = Path(shutil.which(node.runtime) or "")
    libraries = [path for path in program.parent.parent.glob("lib*/libcrun.so*") if path.is_file()]
    if not any(b"execCPUAffinity" in path.read_bytes() for path in (program, *libraries)):
        pytest.skip(f"this {node.runtime} knows no execCPUAffinity (runtime-spec 1.2.1)")
    cpus = sorted(os.sched_getaffinity(0))
    config = container(command=("/bin/sleep", "1000"), resources=Resources(cpuset_cpus=f"{cpus[-1]}"))
    for policy, wanted in ((SpecPolicy(), cpus), (SpecPolicy(exec_cpu_affinity="first"), cpus[-1:])):
        # The cpuset is not given: it would tie the command to the CPU by itself.
        spec = container_spec(node.inputs(config, policy=policy)).value
        del spec["linux"]["resources"]["cpu"]
        name, _ = node.start(spec)
        process = tmp_path / "process.json"
        command = ["/bin/grep", "Cpus_allowed_list", "/proc/self/status"]
        process.write_text(json.dumps(exec_process(spec, command, terminal=False)))
        found = node.call("exec", "--process", str(process), name).stdout.split()[1]
        assert parse_cpus(found, "Cpus_allowed_list") == set(wanted)
