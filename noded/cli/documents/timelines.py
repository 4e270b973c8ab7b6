"""Timelines of pods. All times are nanoseconds since the epoch."""

from __future__ import annotations

from typing import Literal, TypedDict


class Step(TypedDict):
    """One step of a call."""

    name: str  # such as network, or layer 4f1a0c22d9
    start_ns: int  # when it began
    end_ns: int  # when it ended
    finished: bool  # false for what the daemon was at, or died at
    error: str  # why it failed; empty when it did not
    attributes: dict[str, str]  # such as the image
    steps: list[Step]  # what it consists of


class TimelineCall(TypedDict):
    """One call of the client."""

    method: str  # of CRI
    container: str  # name of its container; empty for one of the pod
    start_ns: int  # when it came
    end_ns: int  # when it was answered
    finished: bool  # false for one that is or was under way
    error: str  # the answer's error; empty for none
    trace_id: str  # of OpenTelemetry
    span_id: str  # of OpenTelemetry
    parent_span_id: str  # that of the client; empty for none
    steps: list[Step]  # what was done


class TimelinePhase(TypedDict):
    """A part of a pod's life without a long silence of its client."""

    kind: Literal["start", "later", "end"]  # which part
    start_ns: int  # first call
    end_ns: int  # last answer
    failed: bool  # whether its last call failed
    calls: list[TimelineCall]  # in the order of their begin


class TimelinePod(TypedDict):
    """One pod sandbox."""

    namespace: str  # of Kubernetes
    name: str  # of the pod
    uid: str  # of the pod
    id: str  # of the sandbox
    phases: list[TimelinePhase]  # in the order of their begin


class Timelines(TypedDict):
    """`noded timeline`."""

    schema: Literal["noded.timeline/1"]  # another number when a key changes its meaning
    pods: list[TimelinePod]  # one for each sandbox, oldest first
