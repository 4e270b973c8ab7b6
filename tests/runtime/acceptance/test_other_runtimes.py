"""Other programs with runc's command line work by configuration only."""

from __future__ import annotations

import json
import shutil
import stat

import pytest

from noded.errors import NodedError
from noded.proto.runtime import v1 as cri
from noded.testing import HandlerCase, TestNode

pytestmark = pytest.mark.root

WASM = "run.oci.handler"


@pytest.fixture(params=["runc", "crun"])
def program(request):
    """A program that has a type of its own."""
    name: str = request.param
    return name


@pytest.fixture
def wrapper(tmp_path, program):
    """A runtime of another name: a script in front of one that there is, which writes down its commands."""
    script = tmp_path / "youki"
    log = tmp_path / "commands"
    script.write_text(f'#!/bin/sh\necho "$@" >>{log}\nexec {shutil.which(program)} "$@"\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return script


def test_a_runtime_of_another_name_is_a_path_in_the_configuration(wrapper, program):
    with TestNode([HandlerCase("youki", f'type = "{program}"\npath = "{wrapper}"')]) as node:
        pod = node.run_pod("youki")
        container = pod.run("exec busybox sleep 1000")
        assert container.exec("exit 3").exit_code == 3
        container.stop()
        assert container.status().exit_code == 137
        pod.remove()
    commands = (wrapper.parent / "commands").read_text()
    for verb in ("--version", " create ", " start ", " exec ", " delete "):
        assert verb in commands


def test_a_missing_program_makes_only_its_own_handler_unavailable(tmp_path):
    case = HandlerCase("youki", f'type = "runc"\npath = "{tmp_path}/youki"')
    with TestNode([HandlerCase("other", 'type = "crun"'), case]) as node:
        with pytest.raises(NodedError, match=f"'youki' is unavailable: .*{tmp_path}/youki"):
            node.run_pod("youki")
        pod = node.run_pod("other")
        assert pod.run("exit 2").wait().exit_code == 2
        pod.remove()


def annotated(pod) -> str | None:
    """Run a container with an annotation for a runtime; return what the runtime was given of it."""
    config = cri.ContainerConfig(
        metadata=cri.ContainerMetadata(name="module"),
        image=cri.ImageSpec(image=pod.node.image),
        command=["/bin/sh", "-c", "exec busybox sleep 1000"],
        annotations={WASM: "wasmedge"},
        linux=cri.LinuxContainerConfig(),
    )
    request = cri.CreateContainerRequest(pod_sandbox_id=pod.id, config=config, sandbox_config=pod.config)
    created = pod.node.runtime("CreateContainer", request, cri.CreateContainerResponse)
    start = cri.StartContainerRequest(container_id=created.container_id)
    pod.node.runtime("StartContainer", start, cri.StartContainerResponse)
    spec = json.loads((pod.node.state / "containers" / created.container_id / "config.json").read_bytes())
    value: str | None = spec["annotations"].get(WASM)
    return value


def test_an_annotation_reaches_the_runtime_only_if_the_handler_allows_it():
    cases = [
        HandlerCase("plain", 'type = "crun"'),
        HandlerCase("wasm", 'type = "crun"\nallowed_annotations = ["run.oci.handler"]'),
        HandlerCase("always", f'type = "crun"\ndefault_annotations = {{ "{WASM}" = "wasmtime" }}'),
    ]
    with TestNode(cases) as node:
        pods = {case.name: node.run_pod(case.name) for case in cases}
        assert {name: annotated(pod) for name, pod in pods.items()} == {
            "plain": None,
            "wasm": "wasmedge",
            "always": "wasmtime",
        }


def test_an_unknown_handler_is_refused_with_the_names_of_the_known_ones():
    with (
        TestNode([HandlerCase("mine", 'type = "runc"')]) as node,
        pytest.raises(NodedError, match=r"'other' is not configured .*crun, mine, runc"),
    ):
        node.run_pod("other")


def test_a_handler_has_its_own_seccomp_profile_and_pod_network(tmp_path):
    profile = tmp_path / "profile.json"
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}
    ]}))  # fmt: skip
    networks = tmp_path / "net.d"
    networks.mkdir()
    case = HandlerCase("own", f'type = "runc"\nseccomp_profile = "{profile}"\ncni_conf_dir = "{networks}"\n')
    with TestNode([HandlerCase("plain", 'type = "runc"'), case]) as node:
        with pytest.raises(NodedError, match=str(networks)):
            node.run_pod("own")
        plain = node.run_pod("plain")
        assert plain.run("mkdir /tmp/x", seccomp_default=True).wait().exit_code == 0
        source = next((node.config.parent / "cni").glob("*.conflist"))
        network = json.loads(source.read_text())
        network["name"] = "own-network"
        (networks / "10-own.conflist").write_text(json.dumps(network))
        pod = node.run_pod("own")
        request = cri.PodSandboxStatusRequest(pod_sandbox_id=pod.id, verbose=True)
        assert pod.ip
        assert node.runtime("PodSandboxStatus", request, cri.PodSandboxStatusResponse).status is not None
        assert pod.run("mkdir /tmp/x", name="refused", seccomp_default=True).wait().exit_code != 0
        assert pod.run("mkdir /tmp/x", name="unconfined").wait().exit_code == 0
        profile.write_text("{")
        with pytest.raises(NodedError, match=r"runtimes\.own\.seccomp_profile"):
            pod.run("true", name="broken", seccomp_default=True)
        pod.remove()
        plain.remove()
