from __future__ import annotations

import json
import os
import shutil
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from noded.errors import FailedPrecondition, InvalidArgument, Unavailable
from noded.model.pod import PodConfig, PortMapping, PortProtocol, SandboxKey
from noded.network.network import Network

POD = PodConfig(SandboxKey("ns", "web", "uid", 0), port_mappings=(PortMapping(PortProtocol.TCP, 80, 8080),))
V11 = {"cniVersion": "1.1.0"}


@asynccontextmanager
async def running(lab, **config):
    network = Network(replace(lab.config, **config), lab.root / "cache")
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            await nursery.start(network.run)
            yield network
            nursery.cancel_scope.cancel()


async def until(network, condition):
    """Wait until the status fulfils the condition; fails by the time limit of `running`."""
    while not condition(network.status()):
        await network.changed()
    return network.status()


def plan(network, sandbox_id="abc"):
    return network.plan(sandbox_id, Path("/run/netns/noded-abc"), POD, "/kubepods/pod")


async def in_thread(function, *args):
    return await trio.to_thread.run_sync(function, *args, abandon_on_cancel=True)


def scenario(main):
    """Run an async scenario as a test."""

    def test(lab):
        trio.run(main, lab)

    test.__doc__ = main.__doc__
    return test


def test_before_it_runs_it_is_not_ready_and_says_why(lab):
    async def main():
        network = Network(lab.config, lab.root)
        assert network.status().reason == "NetworkPluginNotReady"
        with pytest.raises(Unavailable, match=r"pod network is not ready: .* has not been read yet"):
            plan(network)

    trio.run(main)


@scenario
async def test_a_plan_holds_all_that_add_and_del_need(lab):
    lab.plugin("bridge")
    lab.plugin("portmap")
    lab.network("bridge", {"type": "portmap", "capabilities": {"portMappings": True}}, custom=1)
    async with running(lab) as network:
        assert network.status().ready
        (attachment,) = plan(network)
    assert attachment.sandbox_id == "abc"
    assert (attachment.netns_path, attachment.ifname, attachment.network) == (
        "/run/netns/noded-abc",
        "eth0",
        "podnet",
    )
    assert attachment.conflist == json.loads((lab.conf / "10-net.conflist").read_text())
    assert attachment.capability_args == {
        "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
    }
    assert dict(attachment.cni_args)["K8S_POD_INFRA_CONTAINER_ID"] == "abc"
    json.dumps(attachment.conflist)


@scenario
async def test_add_and_delete_go_by_the_attachment_even_when_the_file_is_gone(lab):
    lab.result("bridge")
    lab.network("bridge")
    async with running(lab) as network:
        (attachment,) = plan(network)
        (lab.conf / "10-net.conflist").unlink()
        await until(network, lambda status: not status.ready)
        result = await network.add(attachment)
        await network.check(attachment, result)
        await network.delete(attachment, result)
        assert result.ips == ("10.1.2.3",)
    assert [call.command for call in lab.calls()] == ["ADD", "CHECK", "DEL"]


@scenario
async def test_a_file_that_appears_changes_or_goes_is_noticed(lab):
    lab.plugin("bridge")
    async with running(lab) as network:
        assert "has no network" in network.status().message
        lab.network("bridge")
        await until(network, lambda status: status.ready)
        lab.write("10-net.conflist", "{ broken")
        assert (
            "its last good content is in use" in (await until(network, lambda status: status.message)).message
        )
        assert plan(network)
        (lab.conf / "10-net.conflist").unlink()
        await until(network, lambda status: not status.ready)
        lab.write("20-net.tmp", {"cniVersion": "0.4.0", "name": "other", "type": "bridge"})
        os.rename(lab.conf / "20-net.tmp", lab.conf / "20-net.conf")
        await until(network, lambda status: status.ready)
        assert plan(network)[0].network == "other"


@scenario
async def test_a_directory_that_does_not_exist_yet_is_noticed_when_it_comes(lab):
    lab.plugin("bridge")
    lab.conf.rmdir()
    conf = lab.root / "etc" / "cni" / "net.d"
    async with running(lab, conf_dir=conf) as network:
        assert f"{conf} does not exist" in network.status().message
        conf.mkdir(parents=True)
        lab.write(
            str(conf / "10-net.conflist"),
            {"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "bridge"}]},
        )
        await until(network, lambda status: status.ready)


@pytest.mark.parametrize("depth", [1, 2])
def test_a_directory_that_is_deleted_and_recreated_is_still_watched(lab, depth):
    """The reason why other runtimes stay NotReady until they are restarted."""

    async def main():
        lab.plugin("bridge")
        conf = lab.root / "etc" / "cni" / "net.d"
        text = json.dumps({"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "bridge"}]})
        async with running(lab, conf_dir=conf) as network:
            for _ in range(3):
                conf.mkdir(parents=True, exist_ok=True)
                (conf / "10-net.conflist").write_text(text)
                await until(network, lambda status: status.ready)
                shutil.rmtree(conf.parents[depth - 1] if depth > 1 else conf)
                await until(network, lambda status: not status.ready)

    trio.run(main)


@scenario
async def test_a_directory_that_is_swapped_by_rename_or_symlink_is_noticed(lab):
    lab.plugin("bridge")
    for name in ("a", "b"):
        (lab.root / name).mkdir()
        lab.write(
            str(lab.root / name / "10.conflist"),
            {"cniVersion": "1.0.0", "name": name, "plugins": [{"type": "bridge"}]},
        )
    link = lab.root / "link"
    link.symlink_to("a")
    async with running(lab, conf_dir=link) as network:
        assert plan(network)[0].network == "a"
        (lab.root / "new").symlink_to("b")
        os.rename(lab.root / "new", link)
        await network.changed()
        assert plan(network)[0].network == "b"
        os.rename(lab.root / "b", lab.root / "gone")
        await until(network, lambda status: not status.ready)


@scenario
async def test_a_missing_plugin_is_named_and_noticed_when_it_is_installed(lab):
    lab.network("bridge", "portmap")
    lab.plugin("bridge")
    async with running(lab, bin_dirs=(lab.root / "opt" / "bin", lab.bin)) as network:
        message = network.status().message
        assert message == (
            "network 'podnet' (10-net.conflist): CNI plugin 'portmap' is missing: install it in one of "
            f"[network] bin_dirs ({lab.root}/opt/bin, {lab.bin})"
        )
        (lab.root / "opt" / "bin").mkdir(parents=True)
        shutil.copy(lab.bin / "bridge", lab.root / "opt" / "bin" / "portmap")
        await until(network, lambda status: status.ready)


@scenario
async def test_a_plugin_too_old_for_the_configuration_is_named(lab):
    lab.plugin("bridge", versions=("0.3.1", "0.4.0"))
    lab.network("bridge", cniVersion="1.0.0")
    async with running(lab) as network:
        assert (
            "'bridge' speaks 0.3.1, 0.4.0: change cniVersion or install other plugins"
            in network.status().message
        )
        lab.network("bridge", cniVersion="1.0.0", cniVersions=["0.4.0", "1.0.0"])
        await until(network, lambda status: status.ready)
        assert plan(network)[0].conflist["cniVersion"] == "0.4.0"


@scenario
async def test_a_plugin_that_cannot_tell_its_versions_is_trusted(lab):
    path = lab.plugin("bridge")
    path.write_text("#!/bin/sh\nexit 1\n")
    lab.network("bridge")
    async with running(lab) as network:
        assert network.status().ready


@scenario
async def test_the_default_network_can_be_chosen_by_name(lab):
    lab.plugin("bridge")
    lab.network("bridge", file="10-a.conflist", name="a")
    lab.network("bridge", file="20-b.conflist", name="b")
    async with running(lab, default_network="b") as network:
        assert plan(network)[0].network == "b"
        (lab.conf / "20-b.conflist").unlink()
        status = await until(network, lambda status: not status.ready)
        assert "no network named 'b'" in status.message
        assert "(found: a)" in status.message


@scenario
async def test_a_plugin_that_is_not_ready_by_status_makes_the_network_not_ready(lab):
    lab.plugin(
        "bridge",
        f"[ $CNI_COMMAND != STATUS ] || test -e {lab.root}/up || "
        """{ echo '{"code":50,"msg":"agent down"}'; exit 1; }""",
    )
    lab.network("bridge", **V11)
    async with running(lab) as network:
        status = network.status()
        assert (status.ready, status.reason) == (False, "NetworkPluginNotReady")
        assert "CNI plugin 'bridge' failed STATUS of network 'podnet': code 50, agent down" in status.message
        (lab.root / "up").touch()
        network._due = 0.0  # as if time had passed
        await until(network, lambda status: status.ready)
        runs = len(lab.calls("STATUS"))
        for _ in range(100):
            network.status()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert len(lab.calls("STATUS")) == runs


@scenario
async def test_appended_plugins_are_noticed(lab):
    lab.plugin("bridge")
    lab.plugin("tuning")
    lab.network("bridge")
    async with running(lab) as network:
        (lab.conf / "podnet").mkdir()
        lab.write("podnet/10-tuning.conf", {"type": "tuning"})
        while len(plan(network)[0].conflist["plugins"]) == 1:
            await network.changed()
        (lab.conf / "podnet" / "10-tuning.conf").unlink()
        await network.changed()
        assert len(plan(network)[0].conflist["plugins"]) == 1


@scenario
async def test_without_inotify_the_status_question_looks_again(lab):
    lab.plugin("bridge")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("noded.network.network._open_watch", lambda: None)
        async with running(lab) as network:
            lab.network("bridge")
            network._due = 0.0
            await until(network, lambda status: status.ready)


@scenario
async def test_pod_cidrs_are_remembered_and_passed_as_ranges(lab):
    lab.plugin("bridge")
    lab.network({"type": "bridge", "capabilities": {"ipRanges": True}})
    async with running(lab) as network:
        assert plan(network)[0].capability_args == {}
        await network.update_pod_cidr("")
        await network.update_pod_cidr("10.1.0.0/24, fd00::/64")
        await network.update_pod_cidr("10.1.0.0/24,fd00::/64")
        with pytest.raises(InvalidArgument):
            await network.update_pod_cidr("nonsense")
        expected = {"ipRanges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00::/64"}]]}
        assert plan(network)[0].capability_args == expected
    async with running(lab) as network:
        assert plan(network)[0].capability_args == expected


@scenario
async def test_a_template_makes_the_network_when_kubelet_announces_the_pod_cidr(lab):
    lab.plugin("bridge")
    template = lab.root / "template"
    template.write_text(
        '{"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "bridge", "subnet": "{{.PodCIDR}}"}]}'
    )
    async with running(lab, conf_template=str(template)) as network:
        assert not network.status().ready
        await network.update_pod_cidr("10.1.0.0/24")
        assert network.status().ready
        assert plan(network)[0].conflist["plugins"][0]["subnet"] == "10.1.0.0/24"
        template.write_text("{{nonsense}}")
        with pytest.raises(FailedPrecondition, match="conf_template"):
            await network.update_pod_cidr("10.2.0.0/24")
        assert network.status().ready


@scenario
async def test_a_restart_renders_the_template_again_without_kubelet(lab):
    lab.plugin("bridge")
    template = lab.root / "template"
    template.write_text('{"cniVersion": "1.0.0", "name": "a", "plugins": [{"type": "bridge"}]}')
    async with running(lab, conf_template=str(template)) as network:
        await network.update_pod_cidr("10.1.0.0/24")
    (lab.conf / "10-noded.conflist").unlink()
    async with running(lab, conf_template=str(template)) as network:
        assert network.status().ready


@scenario
async def test_gc_runs_per_network_with_the_attachments_as_they_are_when_add_and_del_are_kept_out(lab):
    lab.plugin("bridge")
    lab.network("bridge", **V11)
    async with running(lab) as network:
        (one,) = plan(network, "one")
        (old,) = plan(network, "old")
        old = replace(old, network="left", conflist={**old.conflist, "name": "left"})
        stored = [one]

        def table():
            yield from stored

        stored.append(old)
        await network.gc(table())
    valid = {call.request["name"]: call.request["cni.dev/valid-attachments"] for call in lab.calls("GC")}
    assert valid == {
        "podnet": [{"containerID": "one", "ifname": "eth0"}],
        "left": [{"containerID": "old", "ifname": "eth0"}],
    }


@scenario
async def test_gc_waits_for_running_adds_and_holds_back_new_ones(lab):
    os.mkfifo(lab.root / "go")
    os.mkfifo(lab.root / "gc")
    lab.plugin(
        "bridge",
        f"""case $CNI_COMMAND in
        ADD) [ $CNI_CONTAINERID != slow ] || read go < {lab.root}/go || :
             echo '{{"ips":[{{"address":"10.1.2.3/24"}}]}}';;
        GC) read go < {lab.root}/gc || :;;
        esac""",
    )
    lab.network("bridge", **V11)
    async with running(lab) as network, trio.open_nursery() as nursery:
        nursery.start_soon(network.add, plan(network, "slow")[0])
        slow = await in_thread(os.open, lab.root / "go", os.O_WRONLY)  # it waits for this
        nursery.start_soon(network.gc, [])
        await trio.testing.wait_all_tasks_blocked()
        await network.add(plan(network, "quick")[0])
        assert lab.calls("GC") == []
        os.close(slow)
        # GC has begun when it opens its pipe for reading; an ADD must then wait.
        pipe = await in_thread(os.open, lab.root / "gc", os.O_WRONLY)
        nursery.start_soon(network.add, plan(network, "after")[0])
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert "after" not in [call.container_id for call in lab.calls("ADD")]
        os.close(pipe)
    order = [call.container_id or call.command for call in lab.calls("ADD", "GC")]
    assert order == ["slow", "quick", "GC", "after"]


@scenario
async def test_the_status_question_may_come_from_another_thread(lab):
    lab.plugin("bridge")
    async with running(lab) as network:
        lab.network("bridge")
        await until(network, lambda status: status.ready)
        network._due = 0.0
        assert (await trio.to_thread.run_sync(network.status)).ready


def test_after_its_end_it_answers_from_what_was_known(lab):
    async def main():
        lab.plugin("bridge")
        lab.network("bridge")
        async with running(lab) as network:
            pass
        return network

    network = trio.run(main)
    network._due = 0.0
    assert network.status().ready
