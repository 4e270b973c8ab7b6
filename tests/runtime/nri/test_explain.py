"""`noded explain` of a real container that everybody has changed: a plugin, a CDI device, a hook, NRI."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from noded.spec.explain.fields import fields
from tests.runtime.nri.conftest import HOST, IMAGE
from tests.runtime.plugins.conftest import install  # noqa: F401 - a fixture
from tests.support import images
from tests.support.daemon import NodedDaemon
from tests.support.nri_plugin import NriPlugin

pytestmark = pytest.mark.root

PLUGIN = """
import noded.api as api

@api.hookimpl
def noded_spec_edits(spec, pod, container):
    return [api.Edit(("annotations", "plugin.example/who"), container.name)]
"""
CDI = """\
cdiVersion: 0.7.0
kind: vendor.test/zero
devices:
- name: "0"
  containerEdits:
    env: [FROM_DEVICE=yes]
"""
HOOK = {
    "version": "1.0.0",
    "hook": {"path": "/bin/true"},
    "when": {"always": True},
    "stages": ["createRuntime"],
}


def explain(daemon, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", "noded", "explain", *arguments, "--address", str(daemon.socket), "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def origins(found):
    return {one["name"]: (one["origin"]["kind"], one["origin"]["name"]) for one in found["fields"]}


def test_each_field_of_a_bundle_has_the_source_that_it_really_has(tmp_path, registry, install):  # noqa: F811 - a fixture
    registry.push(images.busybox_image(), "e2e/busybox", "1")
    install("example-edits", PLUGIN)
    for name in ("cdi", "hooks"):
        (tmp_path / name).mkdir()
    (tmp_path / "cdi/vendor.yaml").write_text(CDI)
    (tmp_path / "hooks/true.json").write_text(json.dumps(HOOK))
    (tmp_path / "data").mkdir()
    settings = {
        "cdi_spec_dirs": [tmp_path / "cdi"],
        "hooks_dirs": [tmp_path / "hooks"],
        "default_env": {"FROM_NODE": "1"},
    }
    with (
        NodedDaemon(
            tmp_path, mirrors={HOST: registry.host}, insecure=[registry.host], settings=settings
        ) as daemon,
        daemon.client() as cri,
    ):
        cri.pull(IMAGE)
        one = NriPlugin(daemon.nri_socket, "10", "tuner")
        pb = one.pb
        one.on["CreateContainer"] = lambda request: pb.CreateContainerResponse(
            adjust=pb.ContainerAdjustment(
                env=[pb.KeyValue(key="FROM_NRI", value="1")],
                linux=pb.LinuxContainerAdjustment(oom_score_adj=pb.OptionalInt(value=321)),
            )
        )
        one.connect()
        try:
            pod = daemon.pod_config(cri)
            sandbox = cri.run_pod(pod)
            config = cri.container_config("main", IMAGE, ["sleep", "1000"], env={"MINE": "2"})
            config.mounts.append(
                cri.pb.Mount(container_path="/data", host_path=str(tmp_path / "data"), readonly=True)
            )
            config.linux.resources.memory_limit_in_bytes = 64 << 20
            config.linux.security_context.seccomp.profile_type = 0
            config.CDI_devices.extend([cri.pb.CDIDevice(name="vendor.test/zero=0")])
            container = cri.run_container(sandbox, config, pod)
            found = explain(daemon, container[:13])
            bundle = json.loads((daemon.state / "containers" / container / "config.json").read_text())
            assert {each["name"]: each["value"] for each in found["fields"]} == json.loads(
                json.dumps(fields(bundle))
            )
            sources = origins(found)
            assert sources["process.args[0]"] == ("request", "config.command[0]")
            assert sources["process.env[MINE]"][0] == "request"
            assert sources["process.env[FROM_NODE]"] == ("config", "default_env[FROM_NODE]")
            assert sources["process.env[FROM_DEVICE]"] == ("cdi", "vendor.test/zero=0")
            assert sources["process.env[FROM_NRI]"][0] == "nri"
            assert "tuner" in sources["process.env[FROM_NRI]"][1]
            assert sources["process.oomScoreAdj"][0] == "nri"
            assert sources["annotations[plugin.example/who]"] == ("plugin", "example-edits")
            assert sources["hooks.createRuntime[0].path"] == ("hooks", str(tmp_path / "hooks/true.json"))
            assert sources["mounts[/data].source"] == ("request", "config.mounts[0].host_path")
            assert sources["mounts[/data].options[ro]"] == ("request", "config.mounts[0].readonly")
            assert sources["linux.resources.memory.limit"] == (
                "request",
                "config.linux.resources.memory_limit_in_bytes",
            )
            changed = [name for name, (kind, _) in sources.items() if kind == "changed"]
            assert (changed, found["absent"], found["notes"]) == ([], [], [])

            # Today the device would give something else: that is said.
            (tmp_path / "cdi/vendor.yaml").write_text(CDI.replace("=yes", "=no"))
            later = explain(daemon, container)
            assert origins(later)["process.env[FROM_DEVICE]"][0] == "changed"

            one.close()
            daemon.restart()
            assert origins(explain(daemon, container))["process.env[FROM_NRI]"][0] == "nri"
        finally:
            one.close()
            cri.remove_all_pods()
