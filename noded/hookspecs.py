"""The hooks of noded: all that a plugin can do.

A plugin is an importable module (or object) named by an entry point of group `noded`:

    [project.entry-points.noded]
    example = "noded_example.plugin"

It implements any of the hooks below with `noded.api.hookimpl`. An implementation may leave out
arguments that it does not need.

Hooks are plain functions. Each call runs in a worker thread under a deadline and must not keep
state of the call. A hook that raises or is late is reported with the name of its distribution;
after three failures it is muted until the daemon restarts. noded cannot survive a hook that
holds the interpreter lock for ever: the service watchdog then restarts the daemon.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pluggy

from noded.model.container import ContainerConfig
from noded.model.extension import Edit, Event, Finding
from noded.model.pod import PodConfig
from noded.model.runtime import RuntimeHost, RuntimeType

PROJECT = "noded"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def noded_runtime_types() -> Iterable[RuntimeType]:
    """Offer kinds of runtimes, from which `[runtimes.HANDLER]` tables make handlers.

    Called once, at start, before anything runs. Deadline: 10 s.

    Returns: runtime types. A name that another distribution offers too is an error: handlers of
        that type are unavailable, and the message names both distributions.

    A plugin that fails here offers nothing; its handlers are unavailable, with the reason.
    """
    raise NotImplementedError


@hookspec
def noded_spec_edits(
    spec: Mapping[str, Any], pod: PodConfig, container: ContainerConfig, image: Mapping[str, Any]
) -> Iterable[Edit]:
    """Change the OCI runtime spec of a container before its bundle is written.

    Called for each CreateContainer on every handler. Deadline: 5 s. It must be a pure function:
    a creation that is retried calls it again.

    Args:
        spec: the spec as noded has built it, a copy. Changing it has no effect.
        pod: what the client asked of the sandbox.
        container: what the client asked of the container.
        image: the image's OCI configuration (image-spec config.md).

    Returns: edits, applied in order. Two distributions that set one place to different values make
        the creation fail with FailedPrecondition, which names both.

    A hook that raises or is late fails the creation: a container without an edit that its
    operator relies on is worse than none. That also holds while it is muted.
    """
    raise NotImplementedError


@hookspec
def noded_observe(event: Event) -> None:
    """Learn of a fact about a pod or container.

    Called after the fact is committed, one event at a time for each plugin, in order. Deadline: 1 s.
    Nothing waits for the call. A plugin that is too slow loses events, and the log says how many.

    Args:
        event: what happened, and when in ns since the epoch.
    """
    raise NotImplementedError


@hookspec
def noded_diagnose(host: RuntimeHost) -> Iterable[Finding]:
    """Look whether the node has what the plugin needs.

    Called by `noded check`, and once at start, where only what is not ok is logged. Deadline: 10 s.
    It may read files and run short commands, and must change nothing.

    Args:
        host: facts and paths, as runtimes get them.

    Returns: findings, in the order to show them.
    """
    raise NotImplementedError
