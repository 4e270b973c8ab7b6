"""Facts survive the database, and plans follow from records alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noded.errors import Internal
from noded.model.container import ContainerConfig, ContainerKey, ContainerUser
from noded.model.lifecycle import (
    SANDBOX_STEPS,
    ContainerIntent,
    SandboxIntent,
    check_step,
    container_state,
    exit_reason,
    sandbox_state,
)
from noded.model.network import Attachment, AttachmentResult
from noded.model.pod import HugepageLimit, PodConfig, Resources, SandboxKey
from noded.model.reconcile import Observed, Todo, plan
from noded.model.records import ContainerRecord, Owed, SandboxRecord, container_facts, sandbox_facts
from noded.model.runtime import Exit, TaskState
from noded.model.states import ContainerState, SandboxState

KEY = SandboxKey("ns", "web", "uid", 0)
resources = st.none() | st.builds(
    Resources,
    cpu_shares=st.integers(0, 2**31),
    memory_limit_bytes=st.integers(0, 2**62),
    cpuset_cpus=st.text(max_size=5),
    hugepage_limits=st.lists(st.builds(HugepageLimit, st.text(), st.integers(0, 9)), max_size=2).map(tuple),
    unified=st.dictionaries(st.text(), st.text(), max_size=2),
)
exits = st.none() | st.builds(Exit, st.integers(0, 255), st.integers(0, 2**62), st.booleans(), st.text())


def sandbox(**changes) -> SandboxRecord:
    return replace(
        SandboxRecord("id", KEY, "runc", b"r", PodConfig(KEY), 1, "boot", SandboxIntent.READY, complete=True),
        **changes,
    )


def container(**changes) -> ContainerRecord:
    key = ContainerKey("id", "c", 0)
    return replace(
        ContainerRecord(
            "c1", key, b"r", ContainerConfig("c", 0, "i"), 1, "boot", ContainerIntent.STARTED, "sha256:i"
        ),
        **changes,
    )


@given(resources, st.lists(st.text(max_size=9), max_size=3), st.booleans())
def test_sandbox_facts_survive_the_database(limits, ips, complete):
    attachment = Attachment(
        "id", "/run/netns/x", "eth0", "net", {"plugins": [{"type": "bridge"}]}, (("A", "b"),), {"dns": {}}
    )
    record = sandbox(
        complete=complete,
        attachments=(attachment,),
        results=(AttachmentResult({"ips": []}, tuple(ips)),),
        owed=Owed(5, 2, "network", "no"),
        resources=limits,
    )
    assert replace(sandbox(), **sandbox_facts(record.facts())) == record


@given(resources, exits)
def test_container_facts_survive_the_database(limits, ended):
    record = container(
        chain_ids=("a", "b"), cgroup="/x", log_path="/l", user=ContainerUser(1, 2, (3,)), pid=7,
        started_at_ns=9, exited=ended, resources=limits, stop_signal="SIGTERM",
        owed=Owed(5, 2, "undo rootfs", "busy"),
    )  # fmt: skip
    assert replace(container(), **container_facts(record.facts())) == record


@pytest.mark.parametrize(
    ("record", "whole", "todo"),
    [
        (sandbox(), True, Todo.WATCH),
        (sandbox(), False, Todo.STOP),
        (sandbox(boot_id="earlier"), True, Todo.STOP),
        (sandbox(intent=SandboxIntent.CREATING, complete=False), True, Todo.UNWIND),
        (sandbox(intent=SandboxIntent.STOPPING), True, Todo.STOP),
        (sandbox(intent=SandboxIntent.STOPPED, boot_id="earlier"), False, Todo.KEEP),
        (sandbox(intent=SandboxIntent.STOPPING, owed=Owed(1, 1, "s", "e")), True, Todo.RETRY),
        (sandbox(intent=SandboxIntent.OWED), True, Todo.RETRY),
    ],
)
def test_a_restart_decides_for_every_sandbox(record, whole, todo):
    assert plan([record], [], Observed({"id": whole}, {}), "boot").sandboxes == {"id": todo}


@pytest.mark.parametrize(
    ("record", "task", "todo"),
    [
        (container(), None, Todo.WATCH),
        (container(boot_id="earlier"), None, Todo.MARK_LOST),
        (container(exited=Exit(0, 1)), None, Todo.KEEP),
        (container(intent=ContainerIntent.CREATED), TaskState.CREATED, Todo.WATCH),
        (container(intent=ContainerIntent.CREATED), TaskState.RUNNING, Todo.MARK_STARTED),
        (container(intent=ContainerIntent.CREATING), None, Todo.UNWIND),
        (container(intent=ContainerIntent.REMOVING), None, Todo.UNWIND),
    ],
)
def test_a_restart_decides_for_every_container(record, task, todo):
    tasks = {} if task is None else {"c1": task}
    assert plan([], [record], Observed({}, tasks), "boot").containers == {"c1": todo}


def test_states_are_derived_from_intent_and_exit():
    assert [sandbox_state(intent) for intent in SandboxIntent].count(SandboxState.READY) == 1
    assert container_state(ContainerIntent.CREATED, exited=False) is ContainerState.CREATED
    assert container_state(ContainerIntent.STARTED, exited=False) is ContainerState.RUNNING
    assert container_state(ContainerIntent.STARTED, exited=True) is ContainerState.EXITED


def test_reasons_are_those_that_kubelet_knows():
    assert exit_reason(Exit(0, 1), started=True) == "Completed"
    assert exit_reason(Exit(3, 1), started=True) == "Error"
    assert exit_reason(Exit(137, 1, oom_killed=True), started=True) == "OOMKilled"


def test_a_step_that_the_table_lacks_is_a_defect():
    with pytest.raises(Internal, match="from stopped to ready"):
        check_step(SANDBOX_STEPS, SandboxIntent.STOPPED, SandboxIntent.READY)
