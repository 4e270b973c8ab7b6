"""A collector sees the client's trace, with noded's steps below the client's span."""

from __future__ import annotations

import pytest

from tests.runtime.e2e.conftest import HOST
from tests.support.daemon import NodedDaemon
from tests.support.otlp_receiver import Receiver

pytestmark = pytest.mark.root

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def test_the_receiver_sees_the_trace_id_that_the_client_sent(tmp_path, pushed):
    with Receiver() as receiver:
        settings = {"tracing": {"endpoint": receiver.url}}
        with (
            NodedDaemon(
                tmp_path, settings=settings, mirrors={HOST: pushed.host}, insecure=[pushed.host]
            ) as daemon,
            daemon.client() as cri,
        ):
            request = cri.pb.RunPodSandboxRequest(config=daemon.pod_config(cri, "traced"))
            metadata = (("traceparent", f"00-{TRACE}-{SPAN}-01"),)
            pod = cri.runtime.RunPodSandbox(request, timeout=60, metadata=metadata).pod_sandbox_id
            cri.stop_pod(pod)  # without a trace: not sampled
            assert receiver.arrived.wait(30)
            spans = receiver.spans()
    assert {span["traceId"] for span in spans} == {TRACE}
    (call,) = [span for span in spans if span["name"] == "RunPodSandbox"]
    assert (call["parentSpanId"], call["kind"]) == (SPAN, 2)
    assert {"key": "k8s.pod.name", "value": {"stringValue": "traced"}} in call["attributes"]
    by_id = {span["spanId"]: span for span in spans}
    (plugin,) = [span for span in spans if span["name"] == "CNI bridge ADD"]
    assert by_id[plugin["parentSpanId"]]["name"] == "network"
    assert by_id[by_id[plugin["parentSpanId"]]["parentSpanId"]] is call
