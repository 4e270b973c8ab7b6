"""Traces in the JSON form of OTLP, the OpenTelemetry protocol.

Spec: opentelemetry-proto, trace/v1 in the Protobuf JSON mapping with ids in hexadecimal (OTLP 1.x,
"JSON Protobuf Encoding").
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from noded.model.timeline import Call, Span

CONTENT_TYPE = "application/json"

_SERVER, _INTERNAL, _ERROR = 2, 1, 2  # SpanKind, StatusCode
_SPAN_IDS = 1 << 64


def encode(calls: Iterable[Call], resource: Mapping[str, str], version: str) -> bytes:
    """An ExportTraceServiceRequest.

    Args:
        resource: attributes of whoever made the spans, `service.name` among them.
        version: of noded.
    """
    spans = [span for call in calls for span in _spans(call)]
    document = {
        "resourceSpans": [
            {
                "resource": {"attributes": _attributes(resource)},
                "scopeSpans": [{"scope": {"name": "noded", "version": version}, "spans": spans}],
            }
        ]
    }
    return json.dumps(document, separators=(",", ":")).encode()


def span_id(call: Call, number: int) -> str:
    """The id of a call's step in the trace; 0 = the call itself. Never the invalid id of only zeros."""
    value = (int(call.id, 16) + number) % _SPAN_IDS
    return f"{value or 1:016x}"


def _spans(call: Call) -> Iterable[dict[str, Any]]:
    attributes = {"rpc.system": "grpc", "rpc.method": call.method}
    if call.subject is not None:
        attributes |= {
            "k8s.namespace.name": call.subject.namespace,
            "k8s.pod.name": call.subject.name,
            "k8s.pod.uid": call.subject.uid,
            "noded.sandbox.id": call.subject.sandbox_id,
        }
    if call.container:
        attributes["k8s.container.name"] = call.container
    yield _span(call, Span(0, 0, call.method, call.start_ns, call.last_ns, call.error, attributes))
    for span in call.spans:
        yield _span(call, span)


def _span(call: Call, span: Span) -> dict[str, Any]:
    parent = span_id(call, span.parent) if span.id else call.parent_id
    made: dict[str, Any] = {
        "traceId": call.trace_id,
        "spanId": span_id(call, span.id),
        "name": span.name,
        "kind": _INTERNAL if span.id else _SERVER,
        "startTimeUnixNano": str(span.start_ns),  # 64-bit integers are strings in this mapping
        "endTimeUnixNano": str(span.end_ns or max(call.last_ns, span.start_ns)),
        "attributes": _attributes(span.attributes),
    }
    if parent:
        made["parentSpanId"] = parent
    if span.error:
        made["status"] = {"code": _ERROR, "message": span.error}
    return made


def _attributes(values: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"key": key, "value": {"stringValue": value}} for key, value in values.items() if value]
