"""When contexts are used at all, and what a restart keeps of them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import trio

from noded.config import Config
from noded.engine import selinux as engine
from noded.engine.selinux import SELinux, relabel_mounts
from noded.errors import FailedPrecondition, InvalidArgument
from noded.host import lsm
from noded.model.container import ContainerSecurity, Mount
from noded.model.lifecycle import SandboxIntent
from noded.model.pod import PodConfig, SandboxKey, SandboxSecurity, SELinuxOptions
from noded.model.records import SandboxRecord, sandbox_facts
from noded.model.runtime import RuntimeFeatures
from noded.spec.inputs import ResolvedMount
from noded.spec.selinux import Labels

POLICY = "process = system_u:system_r:container_t:s0\nfile = system_u:object_r:container_file_t:s0\n"
POD = PodConfig(SandboxKey("default", "web", "uid", 0), security=SandboxSecurity(selinux=SELinuxOptions()))
ENABLED, DISABLED = SimpleNamespace(selinux=True), SimpleNamespace(selinux=False)


@pytest.fixture
def policy(monkeypatch):
    """A node with a policy that knows every context."""
    monkeypatch.setattr(lsm, "selinux_container_contexts", lambda name: (f"/etc/selinux/{name}", POLICY))
    monkeypatch.setattr(lsm, "check_selinux_context", lambda context: None)


def record(level=""):
    return SandboxRecord("id", POD.key, "runc", b"", POD, 1, "boot", SandboxIntent.READY, selinux_level=level)


def test_a_node_without_selinux_ignores_what_pods_name():
    node = SELinux(Config(), DISABLED)
    assert node.level(POD, frozenset) == ""
    assert node.of_pod(record("s0:c1,c2")) == Labels()


@pytest.mark.usefixtures("policy")
def test_new_pods_have_none_when_it_is_configured_off_and_old_ones_keep_theirs():
    node = SELinux(Config(enable_selinux=False), ENABLED)
    assert node.level(POD, frozenset) == ""
    assert node.of_pod(record("s0:c1,c2")).process == "system_u:system_r:container_t:s0:c1,c2"
    assert SELinux(Config(), ENABLED).of_pod(record("")) == Labels()


@pytest.mark.usefixtures("policy")
def test_a_level_is_another_one_than_those_that_are_taken():
    node = SELinux(Config(selinux_categories=3), ENABLED)
    taken = frozenset({"s0:c0,c1", "s0:c1,c2"})
    assert node.level(POD, lambda: taken) == "s0:c0,c2"


def test_the_level_is_in_the_record():
    assert sandbox_facts(record("s0:c1,c2").facts())["selinux_level"] == "s0:c1,c2"
    assert sandbox_facts("{}")["selinux_level"] == ""


def test_a_node_without_a_policy_for_containers_says_what_to_install(monkeypatch):
    monkeypatch.setattr(lsm, "selinux_container_contexts", lambda name: (f"/etc/selinux/{name}", ""))
    node = SELinux(Config(), ENABLED)
    with pytest.raises(FailedPrecondition, match="install container-selinux"):
        node.level(POD, frozenset)


@pytest.mark.usefixtures("policy")
def test_a_context_that_the_policy_does_not_know_is_refused_by_its_field(monkeypatch):
    def refuse(context):
        raise InvalidArgument(f"the SELinux policy refuses {context!r}")

    monkeypatch.setattr(lsm, "check_selinux_context", refuse)
    node = SELinux(Config(), ENABLED)
    with pytest.raises(InvalidArgument, match=r"selinux_options: .*container_t"):
        trio.run(node.of_container, record("s0:c1,c2"), ContainerSecurity(), RuntimeFeatures())


def test_only_mounts_that_ask_for_it_are_labelled(monkeypatch):
    seen = []

    def walk(path, label, check_cancelled):
        check_cancelled()
        seen.append((str(path), label))
        return 1

    monkeypatch.setattr(engine, "relabel_tree", walk)
    asks = ResolvedMount(Mount("/data", "/srv/a", selinux_relabel=True), "/srv/a")
    other = ResolvedMount(Mount("/other", "/srv/b"), "/srv/b")
    trio.run(relabel_mounts, (asks, other), Labels("p", "m"))
    assert seen == [("/srv/a", "m")]
    for labels in (Labels(), Labels("p", "m", relabel=False)):
        trio.run(relabel_mounts, (asks,), labels)
    assert len(seen) == 1


def test_a_directory_of_the_node_is_refused_with_the_mount_named():
    etc = ResolvedMount(Mount("/data", "/etc", selinux_relabel=True), "/etc")
    with pytest.raises(FailedPrecondition, match=r"mounts\[0\]: selinux_relabel of /etc"):
        trio.run(relabel_mounts, (etc,), Labels("p", "m"))
