"""SELinux contexts: what a pod names, what the policy gives, and what keeps pods apart."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noded.errors import InvalidArgument, ResourceExhausted
from noded.model.container import ContainerSecurity
from noded.model.pod import (
    NamespaceMode,
    NamespaceOptions,
    PodConfig,
    SandboxKey,
    SandboxSecurity,
    SELinuxOptions,
)
from noded.spec.selinux import (
    Labels,
    container_labels,
    infra_labels,
    parse_contexts,
    parse_policy_name,
    pod_level,
)

FEDORA = """
process = "system_u:system_r:container_t:s0"
content = "system_u:object_r:virt_var_lib_t:s0"
file = "system_u:object_r:container_file_t:s0"
ro_file="system_u:object_r:container_ro_file_t:s0"
sandbox_kvm_process = "system_u:system_r:svirt_qemu_net_t:s0"
kvm_process = "system_u:system_r:container_kvm_t:s0"
"""
CONTEXTS = parse_contexts(FEDORA)
LEVEL = "s0:c7,c900"
FILE = f"system_u:object_r:container_file_t:{LEVEL}"
POD = PodConfig(SandboxKey("default", "web", "uid", 0))
HOST_NETWORK = NamespaceOptions(network=NamespaceMode.NODE)
UNSEPARATED = "system_u:system_r:spc_t:s0"


OWN_NAMESPACES = NamespaceOptions()
NOTHING = ContainerSecurity()


def pod(options=None, namespaces=OWN_NAMESPACES):
    return replace(POD, security=SandboxSecurity(namespaces=namespaces, selinux=options))


def labels(security=NOTHING, of=POD, *, network=True, vm=False):
    return container_labels(
        CONTEXTS, LEVEL, of, security, host_network_unseparated=network, virtual_machine=vm
    )


def test_a_container_that_names_nothing_gets_the_policys_types_at_the_pods_level():
    assert labels() == Labels(f"system_u:system_r:container_t:{LEVEL}", FILE)


def test_options_fill_only_what_they_name():
    only_level = labels(ContainerSecurity(selinux=SELinuxOptions(level="s0:c1,c2")))
    assert only_level.process == "system_u:system_r:container_t:s0:c1,c2"
    assert only_level.mount == "system_u:object_r:container_file_t:s0:c1,c2"
    only_type = labels(ContainerSecurity(selinux=SELinuxOptions(type="container_init_t")))
    assert only_type == Labels(f"system_u:system_r:container_init_t:{LEVEL}", FILE)
    names = labels(ContainerSecurity(selinux=SELinuxOptions(user="staff_u", role="staff_r")))
    assert names.process == f"staff_u:staff_r:container_t:{LEVEL}"
    assert names.mount == f"staff_u:object_r:container_file_t:{LEVEL}"


def test_options_of_the_container_replace_those_of_the_pod():
    of = pod(SELinuxOptions(type="a_t", user="pod_u"))
    assert labels(of=of).process == f"pod_u:system_r:a_t:{LEVEL}"
    mine = labels(ContainerSecurity(selinux=SELinuxOptions(type="b_t")), of)
    assert mine.process == f"system_u:system_r:b_t:{LEVEL}"
    assert labels(ContainerSecurity(selinux=SELinuxOptions()), of) == labels(of=of)


@pytest.mark.parametrize(
    "security",
    [
        ContainerSecurity(privileged=True),
        ContainerSecurity(namespaces=NamespaceOptions(pid=NamespaceMode.NODE)),
        ContainerSecurity(namespaces=NamespaceOptions(ipc=NamespaceMode.NODE)),
    ],
)
def test_what_shares_the_node_is_not_kept_apart_but_its_files_are_the_pods(security):
    assert labels(security) == Labels(UNSEPARATED, FILE)
    named = labels(replace(security, selinux=SELinuxOptions(type="mine_t")))
    assert named.process == "system_u:system_r:mine_t:s0"


def test_the_nodes_network_counts_as_sharing_unless_configured_otherwise():
    of = pod(namespaces=HOST_NETWORK)
    assert labels(of=of).process == UNSEPARATED
    assert labels(of=of, network=False) == labels()


def test_a_virtual_machine_gets_the_policys_type_for_it():
    assert labels(vm=True).process == f"system_u:system_r:container_kvm_t:{LEVEL}"
    without = parse_contexts("\n".join(FEDORA.splitlines()[:-1]))
    assert without.kvm.type == "container_kvm_t"


def test_volumes_of_a_container_that_names_spc_t_stay_as_they_are():
    assert not labels(ContainerSecurity(selinux=SELinuxOptions(type="spc_t"))).relabel
    assert labels(ContainerSecurity(privileged=True)).relabel


def test_the_init_of_a_pod_is_labelled_as_its_containers():
    given_ = {"host_network_unseparated": True, "virtual_machine": False}
    assert infra_labels(CONTEXTS, LEVEL, POD, **given_) == labels()
    host = pod(namespaces=NamespaceOptions(ipc=NamespaceMode.NODE))
    assert infra_labels(CONTEXTS, LEVEL, host, **given_).process == UNSEPARATED


@pytest.mark.parametrize("field", ["user", "role", "type", "level"])
@pytest.mark.parametrize("value", ['a"', "a b", "a\\", "a\n", "a\0", "a/b"])
def test_a_name_that_could_leave_a_mount_option_is_refused_by_its_field(field, value):
    options = SELinuxOptions(**{field: value})
    with pytest.raises(InvalidArgument, match=rf"selinux_options\.{field}"):
        labels(ContainerSecurity(selinux=options))
    with pytest.raises(InvalidArgument, match=rf"selinux_options\.{field}"):
        pod_level(options, (), 1024, random.Random(1).randrange)


def test_a_colon_is_no_part_of_a_type():
    with pytest.raises(InvalidArgument, match="type"):
        labels(ContainerSecurity(selinux=SELinuxOptions(type="a_t:s0")))


def test_a_pod_that_names_its_level_gets_it_though_another_has_it():
    assert pod_level(SELinuxOptions(level=LEVEL), {LEVEL}, 1024, random.Random(1).randrange) == LEVEL


@given(seed=st.integers(), categories=st.integers(2, 12))
def test_no_two_pods_get_the_same_level_until_all_pairs_are_taken(seed, categories):
    below = random.Random(seed).randrange
    taken: set[str] = set()
    for _ in range(categories * (categories - 1) // 2):
        level = pod_level(None, taken, categories, below)
        low, high = (int(name[1:]) for name in level.removeprefix("s0:").split(","))
        assert 0 <= low < high < categories
        assert level not in taken
        taken.add(level)
    with pytest.raises(ResourceExhausted, match="selinux_categories"):
        pod_level(None, taken, categories, below)


@pytest.mark.parametrize("text", ["", 'file = "a:b:c:s0"', "process = nonsense\nfile = a:b:c", "\0"])
def test_contexts_without_what_containers_need_are_refused(text):
    with pytest.raises(InvalidArgument):
        parse_contexts(text)


@given(st.text())
def test_any_file_is_either_read_or_refused(text):
    parse_policy_name(text)
    try:
        found = parse_contexts(text)
    except InvalidArgument:
        return
    assert found.process.type


def test_the_policys_name_is_the_last_that_the_configuration_says():
    assert parse_policy_name("# SELINUXTYPE=old\nSELINUX=enforcing\nSELINUXTYPE=mls\n") == "mls"
    assert parse_policy_name("") == "targeted"
