"""What the daemon counts about itself."""

from __future__ import annotations

import os
import resource
import time
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from typing import Protocol

from noded.engine.debts import Debt
from noded.engine.events import EventKind, Events
from noded.engine.metrics import Metrics, Sample
from noded.images.progress import LayerProgress, Phase, PullProgress
from noded.model.views import ContainerView, SandboxView
from noded.tracing.export import Exporter
from noded.tracing.recorder import Recorder

_LAG_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_NRI_PLUGINS = 32  # with series of their own: a plugin gives itself any name
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Sandboxes(Protocol):
    """What is counted of pods."""

    def views(self) -> Iterable[SandboxView]: ...


class Containers(Protocol):
    """What is counted of containers."""

    def views(self) -> Iterable[ContainerView]: ...


class Pulls(Protocol):
    """What is counted of running pulls."""

    @property
    def received_bytes(self) -> int: ...

    def progress(self) -> Sequence[PullProgress]: ...


class NodeMetrics:
    """The families, and a method for each thing that happens.

    Label values come from fixed sets (methods, codes, error classes, operations), so that the number
    of series is bounded, whatever clients send.
    """

    def __init__(
        self,
        sandboxes: Sandboxes,
        containers: Containers,
        pulls: Pulls,
        events: Events,
        nri_plugins: Callable[[], int],
        debts: Callable[[], Iterable[Debt]],
        recorder: Recorder | None = None,
        exporter: Exporter | None = None,
    ) -> None:
        metrics = self.metrics = Metrics()
        started = time.time()
        metrics.gauge(
            "noded_build_info", "1, with the version.", "version", read=lambda: [((version("noded"),), 1.0)]
        )
        self._handled = metrics.counter(
            "noded_rpc_handled_total", "RPCs that have ended, by gRPC code.", "method", "code"
        )
        self._rpc_seconds = metrics.histogram(
            "noded_rpc_seconds", "Time from the headers of a unary RPC to its answer.", "method"
        )
        self._pulls = metrics.counter(
            "noded_image_pulls_total", 'Image pulls that have ended; "ok" or the class of error.', "result"
        )
        self._pull_seconds = metrics.histogram(
            "noded_image_pull_seconds",
            "Time of image pulls, failed ones too.",
            bounds=(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0),
        )
        metrics.total(
            "noded_image_pull_bytes_total",
            "Bytes of layers that have been downloaded, those of running and failed pulls too.",
            read=lambda: [((), float(pulls.received_bytes))],
        )
        metrics.gauge(
            "noded_image_pulling_layers",
            "Layers of running pulls by what is done with them now.",
            "phase",
            read=lambda: _phases(pulls.progress()),
        )
        metrics.gauge(
            "noded_image_pulling_bytes",
            "Bytes of layers that running pulls still wait for.",
            read=lambda: [((), _missing_bytes(pulls.progress()))],
        )
        self._layers = metrics.counter(
            "noded_image_layers_total", "Layers that pulls needed: downloaded, or present before.", "source"
        )
        self._cni = metrics.counter(
            "noded_cni_operations_total",
            'CNI operations on whole networks; "ok" or the class of error.',
            "operation",
            "result",
        )
        self._cni_seconds = metrics.histogram(
            "noded_cni_operation_seconds", "Time of CNI operations, failed ones too.", "operation"
        )
        metrics.gauge(
            "noded_nri_plugins",
            "NRI plugins that take part.",
            read=lambda: [((), float(nri_plugins()))],
        )
        self._nri = metrics.counter(
            "noded_nri_calls_total",
            "Events that NRI plugins were told of: ok, refused, or lost when the plugin was closed over it.",
            "plugin",
            "method",
            "result",
        )
        self._nri_seconds = metrics.histogram(
            "noded_nri_call_seconds", "Time that NRI plugins took for an event.", "plugin"
        )
        self._nri_seen: set[str] = set()
        self._events = metrics.counter(
            "noded_events_total", "What happened to pods and containers.", "object", "kind"
        )
        self._exits = metrics.counter(
            "noded_container_exits_total", "Containers that have ended, by their reason.", "reason"
        )
        self._blocked_calls = metrics.counter(
            "noded_seccomp_blocked_calls_total",
            "System calls that profiles blocked in containers with a seccomp notifier.",
            "syscall",
        )
        self._oom_kills = metrics.counter(
            "noded_container_oom_kills_total", "Containers that ended because memory ran out."
        )
        metrics.total(
            "noded_event_overflows_total",
            "Event streams cut off because their client was too slow.",
            read=lambda: [((), float(events.overflows))],
        )
        metrics.gauge(
            "noded_pod_sandboxes", "Pod sandboxes by state.", "state", read=lambda: _states(sandboxes.views())
        )
        metrics.gauge(
            "noded_containers", "Containers by state.", "state", read=lambda: _states(containers.views())
        )
        metrics.gauge(
            "noded_debts",
            "Take-downs that are owed, by the step that fails.",
            "kind",
            read=lambda: [
                ((kind,), float(count)) for kind, count in Tally(debt.kind for debt in debts()).items()
            ],
        )
        if recorder is not None:
            metrics.total(
                "noded_timeline_dropped_total",
                "Calls that were not recorded because too many ran at once.",
                read=lambda: [((), float(recorder.dropped))],
            )
        if exporter is not None:
            metrics.total(
                "noded_tracing_calls_total",
                "Traced calls: sent to the collector, or dropped because it does not take them.",
                "result",
                read=lambda: [(("sent",), float(exporter.sent)), (("dropped",), float(exporter.dropped))],
            )
        self._lag = metrics.histogram(
            "noded_loop_lag_seconds",
            "How late the event loop was, once a second.",
            bounds=_LAG_BUCKETS,
        )
        metrics.total("process_cpu_seconds_total", "CPU time of the daemon, in seconds.", read=_cpu_seconds)
        metrics.gauge("process_resident_memory_bytes", "Resident memory of the daemon.", read=_resident)
        metrics.gauge("process_virtual_memory_bytes", "Virtual memory of the daemon.", read=_virtual)
        metrics.gauge("process_open_fds", "Descriptors that the daemon has open.", read=_descriptors)
        metrics.gauge(
            "process_max_fds",
            "Descriptors that the daemon may have open.",
            read=lambda: [((), float(resource.getrlimit(resource.RLIMIT_NOFILE)[0]))],
        )
        metrics.gauge(
            "process_start_time_seconds",
            "When the daemon began, in seconds since the epoch.",
            read=lambda: [((), started)],
        )
        metrics.gauge("noded_threads", "Threads of the daemon.", read=_threads)
        events.observe(self._event)

    def text(self) -> str:
        """The exposition. Takes about a millisecond."""
        return self.metrics.text()

    def rpc(self, method: str, code: str, seconds: float, *, streaming: bool) -> None:
        """An RPC has ended. Streams may last for days: they are counted, but not timed."""
        self._handled.add(method, code)
        if not streaming:
            self._rpc_seconds.observe(seconds, method)

    def pull(self, progress: PullProgress, result: str) -> None:
        """A pull has ended."""
        self._pulls.add(result)
        self._pull_seconds.observe((time.time_ns() - progress.started_at_ns) / 1e9)
        for layer in progress.layers:
            self._layers.add("present" if layer.phase is Phase.PRESENT else "downloaded")

    def cni(self, operation: str, result: str, seconds: float) -> None:
        """A CNI operation has ended."""
        self._cni.add(operation, result)
        self._cni_seconds.observe(seconds, operation)

    def nri(self, plugin: str, method: str, result: str, seconds: float) -> None:
        """A call of an NRI plugin has ended. All plugins but the first 32 count as one."""
        if len(self._nri_seen) < _NRI_PLUGINS:
            self._nri_seen.add(plugin)
        name = plugin if plugin in self._nri_seen else "other"
        self._nri.add(name, method, result)
        self._nri_seconds.observe(seconds, name)

    def blocked_call(self, name: str, count: int) -> None:
        """Containers were refused a system call that often."""
        self._blocked_calls.add(name, amount=float(count))

    def lag(self, seconds: float) -> None:
        """The event loop was that late."""
        self._lag.observe(max(0.0, seconds))

    def _event(self, kind: EventKind, sandbox: SandboxView, container: ContainerView | None) -> None:
        self._events.add("sandbox" if container is None else "container", kind.name.lower())
        if kind is EventKind.STOPPED and container is not None:
            self._exits.add(container.reason)
            if container.reason == "OOMKilled":
                self._oom_kills.add()


def _states(views: Iterable[SandboxView | ContainerView]) -> list[Sample]:
    return [((state,), float(count)) for state, count in Tally(view.state.name for view in views).items()]


def _phases(pulls: Iterable[PullProgress]) -> list[Sample]:
    tally = Tally(layer.phase for layer in _layers(pulls))
    return [((str(phase),), float(tally[phase])) for phase in Phase]


def _missing_bytes(pulls: Iterable[PullProgress]) -> float:
    left = (
        layer.total_bytes - layer.done_bytes for layer in _layers(pulls) if layer.phase is not Phase.PRESENT
    )
    return float(sum(left))


def _layers(pulls: Iterable[PullProgress]) -> Iterable[LayerProgress]:
    """Each layer once, however many pulls wait for it."""
    return {layer.digest: layer for pull in pulls for layer in pull.layers}.values()


def _cpu_seconds() -> list[Sample]:
    used = os.times()
    return [((), used.user + used.system)]


def _memory() -> tuple[int, int]:
    with open("/proc/self/statm", "rb", buffering=0) as file:
        pages = file.readall().split()
    return int(pages[0]) * _PAGE_BYTES, int(pages[1]) * _PAGE_BYTES


def _virtual() -> list[Sample]:
    return [((), float(_memory()[0]))]


def _resident() -> list[Sample]:
    return [((), float(_memory()[1]))]


def _descriptors() -> list[Sample]:
    return [((), float(len(os.listdir("/proc/self/fd")) - 1))]  # without the one of the listing


def _threads() -> list[Sample]:
    return [((), float(len(os.listdir("/proc/self/task"))))]
