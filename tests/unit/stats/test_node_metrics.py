"""The daemon's own metrics: text that Prometheus' parser takes, served over HTTP."""

from __future__ import annotations

import asyncio
import math
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from noded.edge.metrics_http import MetricsServer, parse_listen
from noded.engine.metrics import Metrics
from noded.engine.metrics_node import NodeMetrics
from noded.errors import InvalidArgument, Unavailable


def parse(metrics):
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(metrics.text())
        for sample in family.samples
    }


@given(st.text(st.characters(codec="utf-8", exclude_characters="\r\x85\u2028\u2029\x1c\x1d\x1e\x0b\x0c")))
def test_any_label_and_help_survives(text):
    metrics = Metrics()
    metrics.counter("one_total", "Help.", "label").add(text)
    assert parse(metrics) == {("one_total", (text,)): 1.0}


@given(st.lists(st.floats(0, 100), max_size=50))
def test_buckets_are_cumulative_and_the_last_has_all(values):
    metrics = Metrics()
    histogram = metrics.histogram("h_seconds", "Help.", "method", bounds=(0.1, 1.0, 10.0))
    for value in values:
        histogram.observe(value, "m")
    found = parse(metrics)
    if not values:
        assert found == {}
        return
    for bound in (0.1, 1.0, 10.0, math.inf):
        name = "+Inf" if bound == math.inf else str(bound).removesuffix(".0")
        assert found["h_seconds_bucket", ("m", name)] == sum(value <= bound for value in values)
    assert found["h_seconds_count", ("m",)] == len(values)
    assert found["h_seconds_sum", ("m",)] == pytest.approx(math.fsum(values))


def test_a_counter_without_labels_shows_zero_and_two_of_a_name_are_a_defect():
    metrics = Metrics()
    metrics.counter("a_total", "Help.")
    assert parse(metrics) == {("a_total", ()): 0.0}
    with pytest.raises(ValueError, match="two metrics"):
        metrics.counter("a_total", "Help.")


def test_debts_of_pods_and_containers_are_counted_by_their_step():
    nothing = SimpleNamespace(overflows=0, views=list, received_bytes=0, progress=list)
    nothing.observe = lambda callback: None
    owed = [SimpleNamespace(kind=kind) for kind in ("undo network", "undo bundle", "undo bundle")]
    found = parse(NodeMetrics(nothing, nothing, nothing, nothing, lambda: 0, lambda: owed).metrics)
    assert {labels: value for (name, labels), value in found.items() if name == "noded_debts"} == {
        ("undo network",): 1,
        ("undo bundle",): 2,
    }


def test_plugins_with_names_without_end_do_not_make_series_without_end():
    nothing = SimpleNamespace(overflows=0, views=list, received_bytes=0, progress=list)
    nothing.observe = lambda callback: None
    node = NodeMetrics(nothing, nothing, nothing, nothing, lambda: 1, list)
    for number in range(100):
        for _ in range(2):
            node.nri(f"10-{number}", "CreateContainer", "ok", 0.1)
    found = parse(node.metrics)
    calls = {labels[0]: value for (name, labels), value in found.items() if name == "noded_nri_calls_total"}
    assert len(calls) == 33
    assert (calls["10-0"], calls["other"]) == (2, 2 * (100 - 32))


@pytest.mark.parametrize(
    ("listen", "parsed"),
    [
        ("127.0.0.1:9090", ("127.0.0.1", 9090, "")),
        ("[::1]:9", ("::1", 9, "")),
        ("localhost:0", ("localhost", 0, "")),
        ("/run/x.sock", ("", 0, "/run/x.sock")),
    ],
)
def test_an_address_is_a_host_with_a_port_or_a_path(listen, parsed):
    assert parse_listen(listen) == parsed


@pytest.mark.parametrize("listen", ["9090", ":9090", "::1:9090", "host:", "host:x", "host:70000", "run/x"])
def test_a_bad_address_is_refused_by_name(listen):
    with pytest.raises(InvalidArgument, match=r"^metrics\.listen: "):
        parse_listen(listen)


async def ask(server, request):
    if server.address.startswith("/"):
        reader, writer = await asyncio.open_unix_connection(server.address)
    else:
        host, _, port = server.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return answer


def serve(listen, *requests):
    async def main():
        server = MetricsServer(listen, lambda: "a_total 1\n", lambda seconds: None)
        await server.start()
        try:
            return [await ask(server, request) for request in requests]
        finally:
            await server.close()
            await server.close()

    return asyncio.run(main())


def test_only_get_metrics_is_answered():
    answers = serve(
        "127.0.0.1:0",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /metrics?name=x HTTP/1.0\r\n\r\n",
        b"HEAD /metrics HTTP/1.1\r\n\r\n",
        b"POST /metrics HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"x" * 20000,
    )
    assert answers[0].startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4")
    assert answers[0].endswith(b"\r\n\r\na_total 1\n")
    assert answers[1].endswith(b"a_total 1\n")
    assert answers[2].endswith(b"Connection: close\r\n\r\n")
    statuses = [answer.split(b" ")[1] for answer in answers[3:6]]
    assert statuses == [b"405", b"404", b"400"]


def test_a_unix_socket_serves_too_and_leaves_no_file(tmp_path):
    path = tmp_path / "m"
    (answer,) = serve(str(path), b"GET /metrics HTTP/1.1\r\n\r\n")
    assert b"a_total 1" in answer
    assert not path.exists()


def test_without_an_address_nothing_is_served():
    assert serve("") == []


def test_an_address_in_use_is_named():
    async def main():
        first = MetricsServer("127.0.0.1:0", str, lambda seconds: None)
        await first.start()
        second = MetricsServer(first.address, str, lambda seconds: None)
        try:
            with pytest.raises(Unavailable, match=r"^metrics\.listen: cannot listen on 127"):
                await second.start()
        finally:
            await first.close()

    asyncio.run(main())
