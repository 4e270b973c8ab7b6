from __future__ import annotations

import json

import pytest
import trio

from noded.errors import DeadlineExceeded, FailedPrecondition, Unavailable
from noded.model.network import Attachment, AttachmentResult
from noded.network import chain
from noded.network.plugin import Budget, Plugins

FIRST = json.dumps(
    {
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "eth0", "sandbox": "/ns"}],
        "ips": [{"address": "10.1.2.3/24", "interface": 0}],
    }
)


def attachment(*types, version="1.0.0", **keys):
    return Attachment(
        sandbox_id="abc",
        netns_path="/run/netns/noded-abc",
        ifname="eth0",
        network="podnet",
        conflist={
            "cniVersion": version,
            "name": "podnet",
            "plugins": [{"type": type_} for type_ in types],
            **keys,
        },
        cni_args=(("IgnoreUnknown", "1"),),
    )


@pytest.fixture
def run(lab):
    plugins = Plugins((lab.bin,), "test")

    def run(verb, *args, seconds=20.0):
        async def main():
            return await verb(plugins, *args, Budget(seconds))

        return trio.run(main)

    return run


RESULT = AttachmentResult({"cniVersion": "1.0.0", "ips": [{"address": "10.1.2.3/24"}]}, ("10.1.2.3",))


def test_add_runs_in_order_and_hands_each_result_on(lab, run):
    lab.result("first", FIRST)
    lab.plugin("second", 'echo "$REQUEST" | sed -e "s/.*\\"prevResult\\": //" -e "s/}$//"')
    result = run(chain.add, attachment("first", "second"))
    assert result.ips == ("10.1.2.3",)
    assert result.raw == json.loads(FIRST)
    one, two = lab.calls("ADD")
    assert (one.plugin, two.plugin) == ("first", "second")
    assert "prevResult" not in one.request
    assert two.request["prevResult"] == json.loads(FIRST)
    assert two.netns == "/run/netns/noded-abc"


def test_loopback_in_a_list_needs_no_program(lab, run):
    lab.result("first")
    run(chain.add, attachment("loopback", "first"))
    assert [call.plugin for call in lab.calls()] == ["first"]


def test_add_stops_at_the_first_failure_and_undoes_nothing(lab, run):
    lab.plugin("first", """echo '{"code": 11, "msg": "busy", "details": "lock"}'; exit 1""")
    lab.result("second")
    with pytest.raises(Unavailable) as caught:
        run(chain.add, attachment("first", "second"))
    assert str(caught.value) == (
        "CNI plugin 'first' failed ADD of network 'podnet': code 11, busy: lock; "
        "the plugin asks to be tried again later"
    )
    assert [(call.plugin, call.command) for call in lab.calls()] == [("first", "ADD")]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("echo hello", "answered ADD of 'podnet' wrongly: it printed no JSON"),
        ("true", "answered ADD of 'podnet' wrongly: it printed no result"),
        ("echo half; kill -KILL $$", "failed ADD of network 'podnet': killed by SIGKILL: half"),
        ("echo why >&2; exit 7", "exit status 7: why"),
    ],
)
def test_garbage_and_crashes_are_failures_that_name_the_plugin(lab, run, body, words):
    lab.plugin("bad", body)
    with pytest.raises(Unavailable, match=words) as caught:
        run(chain.add, attachment("bad"))
    assert "CNI plugin 'bad'" in str(caught.value)


def test_a_pod_without_an_address_is_a_failure(lab, run):
    """kubelet restarts a pod without an address for ever; this says why instead."""
    lab.result("l2", '{"cniVersion":"1.0.0","interfaces":[]}')
    with pytest.raises(
        FailedPrecondition, match="gave the pod no IP address on eth0: configure an ipam plugin"
    ):
        run(chain.add, attachment("l2"))


def test_the_budget_is_shared_by_the_whole_list(lab, run):
    lab.result("first")
    lab.plugin("late", "sleep 1000")
    with pytest.raises(DeadlineExceeded, match="'late' did not answer ADD of network 'podnet' within 1 s"):
        run(chain.add, attachment("first", "late"), seconds=1)


def test_delete_runs_backwards_with_the_result_and_without_a_lost_namespace(lab, run):
    lab.plugin("first")
    lab.plugin("second")
    run(chain.delete, attachment("first", "second"), RESULT)
    assert [(call.plugin, call.netns) for call in lab.calls("DEL")] == [("second", ""), ("first", "")]
    assert all(call.request["prevResult"] == RESULT.raw for call in lab.calls("DEL"))


def test_delete_passes_a_namespace_that_exists(lab, run, tmp_path):
    lab.plugin("first")
    plain = tmp_path / "plain"
    plain.touch()
    for path in ("/proc/self/ns/net", str(plain)):
        run(chain.delete, Attachment("abc", path, "eth0", "podnet", attachment("first").conflist), None)
    assert [call.netns for call in lab.calls("DEL")] == ["/proc/self/ns/net", ""]
    assert all("prevResult" not in call.request for call in lab.calls("DEL"))


def test_before_0_4_0_delete_passes_no_result(lab, run):
    lab.plugin("first")
    run(chain.delete, attachment("first", version="0.3.1"), RESULT)
    assert "prevResult" not in lab.calls("DEL")[0].request


def test_delete_halts_at_a_failure_and_is_right_when_repeated(lab, run):
    lab.plugin("first")
    lab.plugin("second", f"test -e {lab.root}/fixed || exit 1")
    with pytest.raises(Unavailable, match="'second' failed DEL of network 'podnet': exit status 1"):
        run(chain.delete, attachment("first", "second"), RESULT)
    assert [call.plugin for call in lab.calls("DEL")] == ["second"]
    (lab.root / "fixed").touch()
    run(chain.delete, attachment("first", "second"), RESULT)
    assert [call.plugin for call in lab.calls("DEL")] == ["second", "second", "first"]


def test_delete_of_an_add_without_result_is_tried_twice(lab, run):
    """bridge needs it after it was killed between its interface and its firewall rules."""
    lab.plugin("first", f"test -e {lab.root}/once && exit 0; touch {lab.root}/once; exit 1")
    run(chain.delete, attachment("first"), None)
    assert len(lab.calls("DEL")) == 2


def test_delete_of_a_container_that_the_plugin_does_not_know_is_success(lab, run):
    lab.plugin("first", """echo '{"code": 3, "msg": "unknown container"}'; exit 1""")
    run(chain.delete, attachment("first"), RESULT)


def test_delete_with_a_missing_program_stays_owed(lab, run):
    lab.plugin("second")
    with pytest.raises(Unavailable, match="CNI plugin 'first' is missing"):
        run(chain.delete, attachment("first", "second"), RESULT)


def test_check_runs_forward_with_the_result(lab, run):
    lab.plugin("first")
    lab.plugin("second")
    run(chain.check, attachment("first", "second"), RESULT)
    assert [(call.plugin, call.request["prevResult"]) for call in lab.calls("CHECK")] == [
        ("first", RESULT.raw),
        ("second", RESULT.raw),
    ]


def test_check_is_left_out_where_the_version_or_the_list_says_so(lab, run):
    lab.plugin("first", "exit 1")
    run(chain.check, attachment("first", version="0.3.1"), RESULT)
    run(chain.check, attachment("first", disableCheck=True), RESULT)
    run(chain.check, attachment("first", version="0.4.0", disableCheck="true"), RESULT)
    assert lab.calls() == []
    with pytest.raises(Unavailable, match="'first' failed CHECK"):
        run(chain.check, attachment("first"), RESULT)


def test_gc_tells_every_plugin_the_valid_attachments_and_reports_all_failures(lab, run):
    lab.plugin("first", "exit 1")
    lab.plugin("second", "exit 2")
    lab.plugin("third")
    document = attachment("first", "second", "third", version="1.1.0").conflist
    with pytest.raises(Unavailable, match="'first' failed GC") as caught:
        run(chain.gc, document, [attachment("first")])
    assert "'second' failed GC" in caught.value.__notes__[0]
    calls = lab.calls("GC")
    assert [call.plugin for call in calls] == ["first", "second", "third"]
    assert calls[0].request["cni.dev/valid-attachments"] == [{"containerID": "abc", "ifname": "eth0"}]


def test_gc_and_status_do_not_exist_before_1_1_0(lab, run):
    lab.plugin("first", "exit 1")
    run(chain.gc, attachment("first").conflist, [])
    run(chain.gc, attachment("first", version="1.1.0", disableGC=True).conflist, [])
    run(chain.status, attachment("first").conflist)
    assert lab.calls() == []


def test_a_delegating_plugin_finds_its_delegate_by_cni_path(lab, run):
    """Multus and Flannel run another plugin themselves, with our environment and their own request."""
    lab.result("delegate", FIRST)
    lab.plugin("meta", 'echo "$REQUEST" | sed s/meta/delegate/ | "$CNI_PATH/delegate"')
    result = run(chain.add, attachment("meta"))
    assert result.ips == ("10.1.2.3",)
    run(chain.delete, attachment("meta"), result)
    assert [(call.plugin, call.command, call.container_id) for call in lab.calls()] == [
        ("meta", "ADD", "abc"),
        ("delegate", "ADD", "abc"),
        ("meta", "DEL", "abc"),
        ("delegate", "DEL", "abc"),
    ]
