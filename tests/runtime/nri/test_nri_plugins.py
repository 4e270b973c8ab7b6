"""NRI plugins that share nothing with noded but the protocol, and what containers see of them."""

from __future__ import annotations

import json
import os
import struct
import threading
import time

import grpc
import pytest

from tests.runtime.nri.conftest import IMAGE, REQUEST_SECONDS
from tests.support.nri_plugin import NriPlugin, PluginError, Unimplemented

pytestmark = pytest.mark.root

SLEEP = ["sleep", "1000"]


@pytest.fixture
def plugin(daemon):
    made = []

    def make(index="10", name="test", **handlers):
        one = NriPlugin(daemon.nri_socket, index, name)
        one.on |= handlers
        made.append(one)
        return one

    yield make
    for one in made:
        one.close()
    for one in made:
        assert one.closed.wait(20)


def create(cri, pod, name="main", command=SLEEP):
    return cri.create(pod[0], cri.container_config(name, IMAGE, command), pod[1])


def run(cri, pod, name="main", command=SLEEP):
    return cri.run_container(pod[0], cri.container_config(name, IMAGE, command), pod[1])


def adjusting(pb, **adjust):
    return lambda request: pb.CreateContainerResponse(adjust=pb.ContainerAdjustment(**adjust))


def limits(pb, **cpu):
    return pb.LinuxResources(cpu=pb.LinuxCPU(**cpu))


def test_a_plugin_adjusts_environment_mounts_and_cpu_as_the_container_sees(plugin, cri, pod, tmp_path):
    (tmp_path / "word").write_text("from the plugin")
    one = plugin()
    pb = one.pb
    one.on["CreateContainer"] = adjusting(
        pb,
        env=[pb.KeyValue(key="ADDED", value="by plugin"), pb.KeyValue(key="-GONE", value="")],
        mounts=[pb.Mount(destination="/given", source=str(tmp_path), type="bind", options=["rbind", "ro"])],
        annotations={"plugin.example/seen": "yes"},
        rlimits=[pb.POSIXRlimit(type="RLIMIT_NOFILE", soft=111, hard=222)],
        linux=pb.LinuxContainerAdjustment(
            oom_score_adj=pb.OptionalInt(value=321),
            resources=limits(pb, shares=pb.OptionalUInt64(value=333)),
        ),
    )
    one.connect()
    config = cri.container_config("main", IMAGE, SLEEP, env={"GONE": "x", "KEPT": "k"})
    container = cri.run_container(pod[0], config, pod[1])

    assert one.told("CreateContainer", container).container.name == "main"
    script = "echo $ADDED,$GONE,$KEPT; cat /given/word; ulimit -n; cat /proc/1/oom_score_adj"
    result = cri.exec(container, "/bin/sh", "-c", script)
    assert result.exit_code == 0
    assert result.stdout.decode().split("\n")[:1] == ["by plugin,,k"]
    assert b"from the plugin" in result.stdout
    assert result.stdout.endswith(b"321\n")
    assert cri.exec(container, "/bin/sh", "-c", "echo x >/given/word").exit_code != 0
    assert cri.status(container).resources.linux.cpu_shares == 333


def test_a_plugin_is_told_of_everything_in_order(plugin, cri, daemon):
    one = plugin()
    one.connect()
    config = daemon.pod_config(cri)
    pod_id = cri.run_pod(config)
    container = run(cri, (pod_id, config))
    update = cri.pb.UpdateContainerResourcesRequest(
        container_id=container, linux=cri.pb.LinuxContainerResources(cpu_shares=77)
    )
    cri.runtime.UpdateContainerResources(update, timeout=30)
    cri.stop(container)
    cri.remove(container)
    cri.stop_pod(pod_id)
    cri.remove_pod(pod_id)
    assert [name for name in one.methods(container) if not name.startswith("Validate")] == [
        "CreateContainer",
        "PostCreateContainer",
        "StartContainer",
        "PostStartContainer",
        "UpdateContainer",
        "PostUpdateContainer",
        "StopContainer",
        "RemoveContainer",
    ]
    pods = [name for name, request in one.calls if name.endswith("PodSandbox") and request.pod.id == pod_id]
    assert pods == ["RunPodSandbox", "StopPodSandbox", "RemovePodSandbox"]
    told = one.told("RunPodSandbox").pod
    assert told.name == config.metadata.name
    assert told.ips
    assert told.linux.cgroup_parent == config.linux.cgroup_parent
    assert one.told("UpdateContainer").linux_resources.cpu.shares.value == 77
    stopped = one.told("StopContainer", container).container
    assert stopped.state == one.pb.CONTAINER_STOPPED
    assert "sleep" in stopped.args


def test_the_end_of_a_container_is_told_once_even_if_nobody_asked_for_it(plugin, cri, pod):
    one = plugin()
    one.connect()
    container = run(cri, pod, command=["/bin/sh", "-c", "exit 7"])
    assert one.told("StopContainer", container).container.exit_code == 7
    cri.stop(container)
    cri.remove(container)
    assert one.methods(container).count("StopContainer") == 1


def test_what_a_plugin_wants_of_an_update_counts(plugin, cri, pod):
    one = plugin()
    pb = one.pb

    def more(request):
        change = pb.ContainerUpdate(container_id=request.container.id)
        change.linux.resources.cpu.shares.value = 999
        return pb.UpdateContainerResponse(update=[change])

    one.on["UpdateContainer"] = more
    one.connect()
    container = run(cri, pod)
    request = cri.pb.UpdateContainerResourcesRequest(
        container_id=container, linux=cri.pb.LinuxContainerResources(cpu_shares=77)
    )
    cri.runtime.UpdateContainerResources(request, timeout=30)
    assert cri.status(container).resources.linux.cpu_shares == 999


def test_a_plugin_updates_and_evicts_containers_unasked(plugin, cri, pod, tmp_path):
    one = plugin()
    one.connect()
    ready = tmp_path / "ready"
    os.mkfifo(ready)
    script = "trap 'exit 9' TERM; echo >/gate/ready; while :; do sleep 0.1; done"
    config = cri.container_config("main", IMAGE, ["/bin/sh", "-c", script], mounts=[(tmp_path, "/gate")])
    container = cri.run_container(pod[0], config, pod[1])
    assert ready.read_text() == "\n"  # before, it would not hear the signal
    change = one.pb.ContainerUpdate(container_id=container)
    change.linux.resources.cpu.shares.value = 555
    missing = one.pb.ContainerUpdate(container_id="f" * 64, linux=change.linux)
    assert [failed.container_id for failed in one.update(change, missing)] == ["f" * 64]
    assert cri.status(container).resources.linux.cpu_shares == 555
    one.update(evict=(one.pb.ContainerEviction(container_id=container, reason="test"),))
    assert cri.wait_exited(container).exit_code == 9


def test_a_plugin_may_update_another_container_while_one_is_created(plugin, cri, pod):
    one = plugin()
    first = run(cri, pod, "first")

    def other(request):
        change = one.pb.ContainerUpdate(container_id=first)
        change.linux.resources.cpu.shares.value = 444
        return one.pb.CreateContainerResponse(update=[change])

    one.on["CreateContainer"] = other
    one.connect()
    create(cri, pod, "second")
    assert cri.status(first).resources.linux.cpu_shares == 444


def test_a_plugin_that_refuses_fails_the_request_and_leaves_nothing(plugin, cri, pod):
    def refuse(request):
        raise PluginError("not on my node")

    one = plugin(CreateContainer=refuse)
    one.connect()
    with pytest.raises(grpc.RpcError, match="10-test refused CreateContainer: not on my node"):
        create(cri, pod)
    assert cri.containers() == []
    one.on.clear()
    create(cri, pod)


def test_plugins_that_contradict_each_other_fail_the_request_by_name(plugin, cri, pod):
    for index, value in (("20", "a"), ("30", "b")):
        one = plugin(index, "chooser")
        one.on["CreateContainer"] = adjusting(one.pb, env=[one.pb.KeyValue(key="WHO", value=value)])
        one.connect()
    with pytest.raises(grpc.RpcError, match="20-chooser and 30-chooser both set env 'WHO'"):
        create(cri, pod)


def test_a_later_plugin_sees_what_an_earlier_one_did_and_may_take_it_away_first(plugin, cri, pod):
    seen = []
    later = plugin("30", "later")

    def change(request):
        seen.extend(request.container.env)
        env = [later.pb.KeyValue(key="-WHO"), later.pb.KeyValue(key="WHO", value="later")]
        return later.pb.CreateContainerResponse(adjust=later.pb.ContainerAdjustment(env=env))

    later.on["CreateContainer"] = change
    later.connect()
    earlier = plugin("20", "earlier")
    earlier.on["CreateContainer"] = adjusting(
        earlier.pb, env=[earlier.pb.KeyValue(key="WHO", value="earlier")]
    )
    earlier.connect()
    container = run(cri, pod)
    assert "WHO=earlier" in seen
    assert cri.exec(container, "/bin/sh", "-c", "echo $WHO").stdout == b"later\n"


def test_a_validating_plugin_sees_all_and_can_reject(plugin, cri, pod):
    adjuster = plugin("20", "adjuster")
    adjuster.on["CreateContainer"] = adjusting(adjuster.pb, env=[adjuster.pb.KeyValue(key="WHO", value="x")])
    adjuster.connect()
    validator = plugin("90", "validator")
    validator.on["ValidateContainerAdjustment"] = lambda request: (
        validator.pb.ValidateContainerAdjustmentResponse(
            reject=request.owners.owners[request.container.id].compound[6].owners["WHO"] == "20-adjuster",
            reason="no WHO here",
        )
    )
    validator.connect()
    with pytest.raises(grpc.RpcError, match="90-validator rejects the container: no WHO here"):
        create(cri, pod)
    told = validator.told("ValidateContainerAdjustment")
    assert {one.name for one in told.plugins} == {"adjuster", "validator"}
    assert "WHO=x" not in told.container.env


@pytest.mark.parametrize("how", ["hangs", "disconnects", "sends garbage", "answers nonsense"])
def test_a_broken_plugin_is_closed_and_the_container_is_created(plugin, cri, pod, how):
    one, gate = plugin(), threading.Event()

    def broken(request):
        if how == "hangs":
            gate.wait(30)
        elif how == "disconnects":
            one.close()
        elif how == "sends garbage":
            one.send_raw(struct.pack(">II", 1, 1 << 30))
            gate.wait(30)
        else:
            return Nonsense()
        return None

    one.on["CreateContainer"] = broken
    one.connect()
    try:
        container = create(cri, pod)
        assert one.closed.wait(20) or how == "disconnects"
    finally:
        gate.set()
    cri.start(container)
    assert cri.exec(container, "echo", "ok").stdout == b"ok\n"


def test_what_plugins_do_with_events_is_counted_and_slow_ones_are_named(plugin, cri, pod, daemon, metric):
    def calls(name, result, method="CreateContainer"):
        return metric("noded_nri_calls_total", plugin=name, method=method, result=result)

    def slow(request):
        time.sleep(REQUEST_SECONDS * 0.6)

    def refuse(request):
        raise PluginError("no")

    willing, gate = plugin("10", "willing", CreateContainer=slow), threading.Event()
    willing.connect()
    create(cri, pod, "one")
    assert (calls("10-willing", "ok"), metric("noded_nri_plugins")) == (1, 1)
    assert metric("noded_nri_call_seconds_sum", plugin="10-willing") > REQUEST_SECONDS / 2
    assert "NRI plugin is slow" in daemon.log_text()
    plugin("20", "unwilling", CreateContainer=refuse).connect()
    with pytest.raises(grpc.RpcError, match="20-unwilling"):
        create(cri, pod, "two")
    assert calls("20-unwilling", "refused") == 1

    def hang(request):
        gate.wait(30)

    hanging = plugin("15", "hanging", CreateContainer=hang)
    hanging.connect()
    try:
        with pytest.raises(grpc.RpcError, match="20-unwilling"):
            create(cri, pod, "three")
        assert hanging.closed.wait(20)
    finally:
        gate.set()
    assert (calls("15-hanging", "lost"), metric("noded_nri_plugins")) == (1, 2)


class Nonsense:
    """Bytes that are no message."""

    def SerializeToString(self):  # noqa: N802 - named by protobuf
        return b"\xff\xff\xff\xff"


def test_an_old_plugin_gets_state_changes(plugin, cri, pod):
    def missing(request):
        raise Unimplemented("no such method")

    one = plugin(StartContainer=missing)
    one.connect()
    container = run(cri, pod)
    change = one.told("StateChange", container)
    assert change.event == one.pb.START_CONTAINER


@pytest.mark.parametrize(("index", "name"), [("1", "short"), ("xy", "letters"), ("10", "bad/name")])
def test_a_plugin_with_a_bad_name_is_not_taken(daemon, index, name):
    one = NriPlugin(daemon.nri_socket, index, name)
    with pytest.raises(PluginError, match=r"plugin (index|name)"):
        one.connect(wait=False)
    assert one.closed.wait(20)
    one.close()


def test_a_new_plugin_is_told_what_exists_after_a_restart(plugin, daemon, cri, pod):
    container = run(cri, pod)
    daemon.restart(hard=True)
    cri.stop("0" * 64)
    one = plugin()
    one.connect()
    told = one.told("Synchronize")
    assert pod[0] in [each.id for each in told.pods]
    (known,) = [each for each in told.containers if each.id == container]
    assert known.state == one.pb.CONTAINER_RUNNING
    assert known.pid > 0
    assert "sleep" in known.args
    info = json.loads(cri.runtime.Status(cri.pb.StatusRequest(verbose=True), timeout=30).info["info"])
    assert info["nriPlugins"] == [{"name": "test", "index": "10", "preinstalled": False, "failures": 0}]


def test_an_installed_plugin_is_started_with_its_configuration_before_anything_happens(
    daemon, cri, pod, tmp_path
):
    import sys

    from tests.support.daemon import REPOSITORY

    directory, configs = (daemon.settings["nri"][key] for key in ("plugin_path", "plugin_config_path"))
    directory.mkdir()
    configs.mkdir()
    program = directory / "15-installed"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path[:0] = {[str(REPOSITORY), *sys.path]!r}\n"
        "from tests.support.nri_plugin import main\nmain()\n"
    )
    program.chmod(0o755)
    (directory / "not-a-plugin").write_text("#!/bin/false\n")
    (directory / "not-a-plugin").chmod(0o755)
    (configs / "installed.conf").write_text("a: setting\n")
    try:
        daemon.restart()
        container = run(cri, pod)
        shown = cri.exec(container, "/bin/sh", "-c", "echo $INSTALLED")
        assert shown.stdout == b"15-installed a: setting\n"
    finally:
        program.unlink()
        (directory / "not-a-plugin").unlink()
        directory.rmdir()
        daemon.restart()
    container = run(cri, pod, "after")
    assert cri.exec(container, "/bin/sh", "-c", "echo $INSTALLED").stdout == b"\n"


def test_a_plugin_gives_devices_of_cdi(plugin, daemon, cri, pod):
    directory = daemon.settings["cdi_spec_dirs"][0]
    directory.mkdir(parents=True, exist_ok=True)
    edits = {"env": ["GIVEN=by cdi"]}
    described = {"cdiVersion": "0.6.0", "kind": "nri.example/word", "devices": [{"name": "a"}]}
    described["devices"][0]["containerEdits"] = edits
    (directory / "word.json").write_text(json.dumps(described))
    one = plugin()
    device = one.pb.CDIDevice(name="nri.example/word=a")
    one.on["CreateContainer"] = adjusting(one.pb, CDI_devices=[device])
    one.connect()
    container = run(cri, pod)
    assert cri.exec(container, "/bin/sh", "-c", "echo $GIVEN").stdout == b"by cdi\n"
    device.name = "nri.example/word=none"
    one.on["CreateContainer"] = adjusting(one.pb, CDI_devices=[device])
    with pytest.raises(grpc.RpcError, match=r"nri\.example/word=none"):
        create(cri, pod, "second")
