"""What noded is to reach, as ratios in one run. The report says for each whether it was."""

from __future__ import annotations

from dataclasses import dataclass

from tests.bench.results import Results


@dataclass(frozen=True)
class Target:
    """Median of `subject` in `row` is at most `at_most` times that of `against`. `cpu`: its CPU time."""

    row: str  # a prefix: the case in a row's title depends on the counts
    subject: str
    against: str
    at_most: float
    cpu: bool = False


@dataclass(frozen=True)
class Verdict:
    """A target in one run. `floor`: the ratio of the bare programs to the same peer, None when unknown."""

    target: Target
    row: str
    ratio: float
    floor: float | None = None

    @property
    def met(self) -> bool:
        return self.ratio <= self.target.at_most


_RUNC, _CRUN = "noded runc", "noded crun"
_PEER, _PEER_CRUN = "containerd runc", "containerd crun"

TARGETS = (
    Target("pod start", _RUNC, _PEER, 0.6),
    Target("pod start", _CRUN, _PEER, 0.4),
    Target("pod start", _CRUN, _PEER_CRUN, 0.6),
    Target("pod start", _RUNC, "floor runc", 1.6),
    Target("pod start", _CRUN, "floor crun", 1.6),
    Target("pod start, 50 pods, 8 clients", _RUNC, _PEER, 1 / 1.5),
    Target("pod start, 50 pods, 8 clients", _CRUN, _PEER, 1 / 2),
    Target("ExecSync true", _RUNC, _PEER, 1.05),
    Target("ExecSync true", _CRUN, _PEER, 0.35),
    Target("ExecSync true", _RUNC, "floor runc", 1.3),
    Target("ExecSync true", _CRUN, "floor crun", 1.3),
    Target("stop + remove", _RUNC, _PEER, 0.6),
    Target("stop + remove", _CRUN, _PEER, 0.5),
    Target("ListContainers, 20 containers", _RUNC, _PEER, 3.0, cpu=True),
    Target("ListContainers, 500 containers", _RUNC, _PEER, 1.0, cpu=True),
    Target("pull, 8 gzip layers", _RUNC, _PEER, 0.45, cpu=True),
    Target("pull, 8 gzip layers", _RUNC, _PEER, 0.6),
    Target("pull, 8 gzip layers", _RUNC, "floor runc", 2.6, cpu=True),
    Target("pull, 8 zstd layers", _RUNC, _PEER, 0.45, cpu=True),
    Target("pull, 8 zstd layers", _RUNC, _PEER, 0.6),
    Target("PSS of helpers per pod", _RUNC, _PEER, 0.12),
    Target("PSS of daemon, idle", _RUNC, _PEER, 1.5),
    Target("PSS of daemon, 20 pods", _RUNC, _PEER, 1.4),
    Target("idle CPU", _RUNC, _PEER, 1.0),
    Target("restart to first correct list", _RUNC, _PEER, 0.5),
)


def verdicts(results: Results) -> list[Verdict]:
    """All targets whose measures ran."""
    found = []
    for target in TARGETS:
        for row in results.rows:
            if row != target.row and not row.startswith(f"{target.row},"):
                continue
            if target.row == "pod start" and row != target.row:
                continue
            ratio = results.ratio(row, target.subject, target.against, cpu=target.cpu)
            if ratio is not None and "peak" not in row:
                bare = f"floor {target.subject.split()[-1]}"
                floor = None
                if target.against != bare:
                    floor = results.ratio(row, bare, target.against, cpu=target.cpu)
                found.append(Verdict(target, row, ratio, floor))
    return found
