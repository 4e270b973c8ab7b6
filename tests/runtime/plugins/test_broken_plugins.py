"""Plugins that raise, sleep, collide or are for another noded: the daemon is healthy and names them."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from noded.errors import NodedError
from noded.proto.runtime import v1 as cri
from noded.testing import TestNode
from noded.testing.node import eventually

pytestmark = pytest.mark.root

RAISES = """
from noded.api import hookimpl

@hookimpl
def noded_runtime_types():
    raise RuntimeError("no types today")
"""

RAISES_LATER = """
from noded.api import hookimpl

@hookimpl
def noded_spec_edits(spec):
    if spec["annotations"].get("io.kubernetes.container.name") == "edited":
        raise RuntimeError("no edits today")
    return ()

@hookimpl
def noded_observe(event):
    raise RuntimeError("nothing seen")

@hookimpl
def noded_diagnose(host):
    raise RuntimeError("no diagnosis")
"""

SLEEPS = """
import time
from noded.api import hookimpl

@hookimpl
def noded_observe(event):
    time.sleep(100000)

@hookimpl
def noded_diagnose(host):
    time.sleep(100000)
"""

SLEEPS_IN_EDITS = """
import time
from noded.api import hookimpl

@hookimpl
def noded_spec_edits(spec):
    time.sleep(100000)
"""

EDITS = """
from noded.api import Edit, hookimpl

@hookimpl
def noded_spec_edits(spec, pod, container, image):
    if container.name == "plain":
        return []
    return [
        Edit(("annotations", "example.org/seen"), f"{{pod.key.name}} {{container.name}} {{image['os']}}"),
        Edit(("process", "env"), "EDITED={value}", append=True),
        Edit(("hostname",), "{value}"),
    ]
"""

OBSERVES = """
from noded.api import hookimpl

@hookimpl
def noded_observe(event):
    with open("{path}", "a") as file:
        file.write(f"{{event.kind}} {{event.container_id[:4]}} {{event.exit_code}}\\n")
"""

SECOND_RUNC = """
from noded.api import OciOptions, RuntimeType, hookimpl

@hookimpl
def noded_runtime_types():
    return [RuntimeType("runc", OciOptions, lambda handler, options, host: None)]
"""

UNKNOWN_HOOK = """
from noded.api import hookimpl

@hookimpl
def noded_reticulate_splines(event):
    pass
"""


def plugins(node: TestNode) -> dict[str, dict]:
    """What Status says of each plugin, by distribution."""
    reply = node.runtime("Status", cri.StatusRequest(verbose=True), cri.StatusResponse)
    texts = [json.loads(text) for text in reply.info.values()]
    found = next(text["plugins"] for text in texts if "plugins" in text)
    return {plugin["distribution"]: plugin for plugin in found}


def lives(node: TestNode, handler: str = "runc") -> None:
    pod = node.run_pod(handler)
    assert pod.run("exit 3", name="plain").wait().exit_code == 3
    pod.remove()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (RAISES, "no types today"),
        (UNKNOWN_HOOK, "noded_reticulate_splines"),
        ("import nothing_here", "nothing_here"),
    ],
    ids=["raising", "unknown hook", "import error"],
)
def test_a_plugin_that_cannot_be_used_is_named_and_harms_nobody(install, source, words):
    install("broken-example", source)
    with TestNode([]) as node:
        problem = plugins(node)["broken-example"]["problem"]
        assert words in problem
        assert "broken-example" in node.log_end(200)
        lives(node)


def test_two_plugins_with_one_type_make_it_unavailable_and_are_both_named(install):
    install("second-runc", SECOND_RUNC)
    with TestNode([]) as node:
        reply = node.runtime("Status", cri.StatusRequest(), cri.StatusResponse)
        problem = next(one for one in reply.status.conditions if one.type == "RuntimeReady")
        assert not problem.status
        assert "second-runc" in problem.message
        assert "noded-plugin-runc" in problem.message
        with pytest.raises(NodedError, match="second-runc"):
            node.run_pod("runc")


def test_hooks_that_raise_are_muted_and_seen(install):
    install("raises-later", RAISES_LATER)
    with TestNode([]) as node:
        lives(node)
        pod = node.run_pod("runc")
        for attempt in range(4):
            with pytest.raises(NodedError, match="raises-later") as caught:
                pod.create("true", name="edited", attempt=attempt)
            assert "no edits today" in str(caught.value) or "muted" in str(caught.value)
        assert set(plugins(node)["raises-later"]["muted"]) >= {"noded_observe", "noded_spec_edits"}
        with pytest.raises(NodedError, match="raises-later"):
            pod.create("true", name="plain")
        listed = subprocess.run(
            [sys.executable, "-m", "noded", "plugins", "list", "--config", node.config],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        assert "muted after failures, see the daemon's log: noded_observe, noded_spec_edits" in listed
        pod.remove()
        assert "no diagnosis" in node.log_end(500)


def test_hooks_that_sleep_for_ever_delay_nothing(install):
    install("sleeps-for-ever", SLEEPS)
    with TestNode([]) as node:
        started = time.monotonic()
        for _ in range(3):
            lives(node)
        assert time.monotonic() - started < 10
        eventually(
            lambda: plugins(node)["sleeps-for-ever"]["muted"] == ["noded_observe"],
            20,
            "the observer is muted",
        )


def test_edits_that_are_late_fail_their_create_in_time(install):
    install("sleepy-edits", SLEEPS_IN_EDITS)
    with TestNode([]) as node:
        pod = node.run_pod("runc")
        started = time.monotonic()
        with pytest.raises(NodedError, match=r"sleepy-edits .*noded_spec_edits.* 5 s"):
            pod.create("true")
        assert 5 <= time.monotonic() - started < 8
        pod.remove()


def test_edits_of_two_plugins_meet_in_the_container(install):
    install("edits-alike", EDITS.format(value="same"))
    install("edits-too", EDITS.format(value="same"))
    with TestNode([]) as node:
        pod = node.run_pod("runc")
        container = pod.run("hostname; echo $EDITED")
        container.wait()
        assert container.log() == "same\nsame\n"
        pod.remove()


def test_edits_that_contradict_each_other_fail_the_create_and_leave_nothing(install):
    install("edits-one", EDITS.format(value="one"))
    install("edits-two", EDITS.format(value="two"))
    with TestNode([]) as node:
        pod = node.run_pod("runc")
        with pytest.raises(NodedError, match="edits-one and edits-two change hostname"):
            pod.create("true")
        assert pod.run("exit 5", name="plain").wait().exit_code == 5
        pod.remove()
        assert list((node.state / "containers").iterdir()) == []


def test_an_observer_hears_of_every_fact_in_order(install, tmp_path):
    path = tmp_path / "seen"
    install("observes", OBSERVES.format(path=path))
    with TestNode([]) as node:
        pod = node.run_pod("runc")
        container = pod.run("exit 4")
        container.wait()
        pod.remove()
        eventually(lambda: path.exists() and "sandbox_removed" in path.read_text(), 10, "the last event")
    name = container.id[:4]
    assert path.read_text().splitlines() == [
        "sandbox_started  None",
        f"container_created {name} None",
        f"container_started {name} None",
        f"container_exited {name} 4",
        "sandbox_stopped  None",
        f"container_removed {name} None",
        "sandbox_removed  None",
    ]
