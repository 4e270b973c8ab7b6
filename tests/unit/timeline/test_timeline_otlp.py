"""OpenTelemetry: the client's trace is continued, and a collector never holds anything up."""

from __future__ import annotations

import re

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from timeline_values import failed, started
from trio.testing import MockClock

from noded.errors import InvalidArgument
from noded.tracing import export
from noded.tracing.export import Exporter, traces_url
from noded.tracing.journal import Journal
from noded.tracing.recorder import Recorder
from noded.wire.traceparent import TraceParent, parse
from tests.support.otlp_receiver import Receiver

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("header", "parsed"),
    [
        (f"00-{TRACE}-{SPAN}-01", TraceParent(TRACE, SPAN, True)),
        (f" 00-{TRACE}-{SPAN}-00 ", TraceParent(TRACE, SPAN, False)),
        (f"00-{TRACE}-{SPAN}-03", TraceParent(TRACE, SPAN, True)),
        (f"cc-{TRACE}-{SPAN}-01-what-will-be", TraceParent(TRACE, SPAN, True)),
        (f"00-{TRACE}-{SPAN}-01-more", None),
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE.upper()}-{SPAN}-01", None),
        ("", None),
    ],
)
def test_traceparent_is_read_as_the_specification_says(header, parsed):
    assert parse(header) == parsed


@given(st.text(st.characters(codec="ascii"), max_size=80) | st.from_regex(r"[0-9a-f-]{40,60}"))
def test_any_other_traceparent_is_ignored(text):
    found = parse(text)
    assert found is None or (len(found.trace_id) == 32 and len(found.span_id) == 16)


def test_the_receiver_gets_every_step_as_a_child_of_its_call(tmp_path):
    timeline = failed()
    import urllib3

    with Receiver() as receiver, urllib3.PoolManager() as pool:
        assert not export.post(pool, f"{receiver.url}/v1/traces", timeline.calls)
        spans = receiver.spans()
        attributes = receiver.bodies[0]["resourceSpans"][0]["resource"]["attributes"]
    assert {"key": "service.name", "value": {"stringValue": "noded"}} in attributes
    assert len(spans) == sum(1 + len(call.spans) for call in timeline.calls)
    by_id = {span["spanId"]: span for span in spans}
    assert len(by_id) == len(spans)
    assert all(re.fullmatch("[0-9a-f]{16}", one) for one in by_id)
    runc = next(span for span in spans if span["name"] == "runc create")
    assert by_id[runc["parentSpanId"]]["name"] == "runtime"
    assert by_id[by_id[runc["parentSpanId"]]["parentSpanId"]]["name"] == "CreateContainer"
    assert runc["status"]["code"] == 2
    assert int(runc["endTimeUnixNano"]) - int(runc["startTimeUnixNano"]) == 68_000_000


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("http://collector:4318", "http://collector:4318/v1/traces"),
        ("https://collector/", "https://collector/v1/traces"),
        ("http://[::1]:4318/custom/v1/traces", "http://[::1]:4318/custom/v1/traces"),
    ],
)
def test_an_endpoint_without_path_gets_the_usual_one(endpoint, url):
    assert traces_url(endpoint, "tracing.endpoint") == url


@pytest.mark.parametrize(
    "endpoint", ["collector:4318", "grpc://c:4317", "http://", "http://c:0", "http://c:x"]
)
def test_another_endpoint_is_refused_by_its_key(endpoint):
    with pytest.raises(InvalidArgument, match=r"tracing\.endpoint"):
        Exporter(endpoint)


def test_a_collector_that_is_gone_costs_spans_and_nothing_else(monkeypatch):
    monkeypatch.setattr(export, "_QUEUE_CALLS", 6)

    async def main() -> None:
        exporter = Exporter("http://127.0.0.1:1")  # nobody listens there
        async with trio.open_nursery() as nursery:
            nursery.start_soon(exporter.run)
            exporter.offer(started().calls)
            exporter.offer(started().calls)
            await trio.sleep(20)
            assert (exporter.sent, exporter.dropped) == (0, 2)
            with Receiver() as receiver:
                exporter.url = f"{receiver.url}/v1/traces"
                await trio.to_thread.run_sync(receiver.arrived.wait, 30)
                while not exporter.sent:  # noqa: ASYNC110 # it tells nobody
                    await trio.sleep(0.01)
            assert (exporter.sent, exporter.dropped) == (6, 2)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=MockClock(rate=50))


def test_what_a_collector_refuses_for_good_is_dropped(caplog):
    async def main() -> None:
        with Receiver(400) as receiver:
            exporter = Exporter(receiver.url)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(exporter.run)
                exporter.offer(started().calls)
                await trio.to_thread.run_sync(receiver.arrived.wait, 30)
                while not exporter.dropped:  # noqa: ASYNC110 # it tells nobody
                    await trio.sleep(0.01)
                assert (exporter.sent, exporter.dropped) == (0, 4)
                nursery.cancel_scope.cancel()

    trio.run(main)


def test_the_clients_decision_about_its_trace_is_followed(tmp_path):
    recorder = Recorder(Journal(tmp_path), Exporter("http://127.0.0.1:1"), 0)
    assert recorder.begin("Status", "") is None
    assert recorder.begin("Status", f"00-{TRACE}-{SPAN}-00") is None
    record = recorder.begin("Status", f"00-{TRACE}-{SPAN}-01")
    assert record is not None
    assert (record.snapshot().trace_id, record.snapshot().parent_id) == (TRACE, SPAN)
    unasked = recorder.begin("RunPodSandbox", "")
    assert unasked is not None
    assert not unasked.sampled
    always = Recorder(Journal(tmp_path), Exporter("http://127.0.0.1:1"), 1_000_000).begin("Status", "")
    assert always is not None
    assert always.sampled
