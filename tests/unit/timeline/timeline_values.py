"""A pod's start as it is recorded, made up."""

from __future__ import annotations

from noded.model.timeline import Call, Span, Subject, Timeline

BEGUN_NS = 1_790_000_000_000_000_000
MS = 1_000_000
WEB = Subject("default", "web", "u-1", "4f1a0c22d9b7e6a5" * 4)


def call(
    method: str, start_ms: float, end_ms: float, steps=(), *, error="", subject=WEB, container="", id_=None
):
    """`steps`: (parent, name, start, end, error), in ms from the start of the timeline; ids count from 1."""

    def at(ms: float) -> int:
        return BEGUN_NS + int(ms * MS)

    spans = tuple(
        Span(number, parent, name, at(start), at(end) if end is not None else 0, *failed)
        for number, (parent, name, start, end, *failed) in enumerate(steps, start=1)
    )
    made = id_ or f"{abs(hash((method, start_ms, container))) % 2**63 + 1:016x}"
    return Call(
        made, method, "0af7651916cd43dd8448eb211c80319c", "", at(start_ms),
        at(end_ms) if end_ms is not None else 0, error, subject, container, spans,
    )  # fmt: skip


def started() -> Timeline:
    run = call(
        "RunPodSandbox", 0, 90,
        [(0, "record", 1, 3), (0, "cgroup", 3, 4), (0, "namespaces", 4, 8), (0, "network", 8, 84),
         (4, "CNI bridge ADD", 9, 66), (4, "CNI portmap ADD", 66, 83), (0, "ready", 84, 89)],
    )  # fmt: skip
    pull = call(
        "PullImage", 95, 940,
        [(0, "manifest", 96, 210), (0, "layers", 212, 860), (2, "layer e5b81e683ddd", 212, 860),
         (3, "download", 220, 700), (3, "inflate and extract", 222, 860), (2, "layer 91d13cd36c82", 212, 500),
         (6, "wait", 212, 300), (6, "download", 300, 420), (6, "inflate and extract", 420, 500),
         (0, "publish", 861, 925), (0, "record", 925, 938)],
        subject=Subject("default", "web", "u-1"),
    )  # fmt: skip
    create = call(
        "CreateContainer", 980, 1120,
        [(0, "rootfs", 984, 990), (0, "spec", 990, 996), (0, "runtime", 996, 1112),
         (3, "start conmon", 997, 1005), (3, "runc create", 1006, 1110)],
        container="main",
    )  # fmt: skip
    start = call(
        "StartContainer",
        1125,
        1160,
        [(0, "runtime", 1126, 1156), (1, "runc start", 1126, 1155)],
        container="main",
    )
    return Timeline(WEB, (run, pull, create, start))


def failed() -> Timeline:
    said = 'runc could not create container: exec: "/absent": no such file <script>alert(1)</script>'
    run = call("RunPodSandbox", 0, 60, [(0, "network", 2, 58), (1, "CNI bridge ADD", 3, 57)])
    create = call(
        "CreateContainer", 70, 190,
        [(0, "rootfs", 72, 80), (0, "spec", 80, 84), (0, "runtime", 84, 160, said),
         (3, "runc create", 90, 158, said), (0, "undo runtime", 160, 170), (0, "undo rootfs", 170, 188)],
        error=f"FAILED_PRECONDITION: {said}", container="main",
    )  # fmt: skip
    return Timeline(WEB, (run, create))
